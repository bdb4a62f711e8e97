-- The demo target: a small company's receivables. 600 customers, 5,500 invoices, about 4,000 payments.
-- Run as the superuser in the database `ledger`, in one transaction: it is there whole, or not at all.
-- Deterministic: one seed, one order, no clock. "Today" in this story is 31 October 2026.
DROP SCHEMA IF EXISTS billing CASCADE;
CREATE SCHEMA billing AUTHORIZATION ledger_owner;
SET LOCAL ROLE ledger_owner;
SET LOCAL search_path = billing;
-- A parallel worker has a random stream of its own.
SET LOCAL max_parallel_workers_per_gather = 0;
SELECT setseed(0.2026);

CREATE TABLE customers (
  id bigint PRIMARY KEY,
  name text NOT NULL,
  email text NOT NULL UNIQUE,
  country text NOT NULL CHECK (country ~ '^[A-Z]{2}$'),
  currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
  payment_terms_days integer NOT NULL CHECK (payment_terms_days > 0),
  created_on date NOT NULL
);

CREATE TABLE invoices (
  id bigint PRIMARY KEY,
  number text NOT NULL UNIQUE,
  customer_id bigint NOT NULL REFERENCES customers,
  status text NOT NULL CHECK (status IN ('draft', 'open', 'partially_paid', 'paid', 'overdue', 'void')),
  currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
  net_amount numeric(12, 2) NOT NULL CHECK (net_amount > 0),
  tax_amount numeric(12, 2) NOT NULL CHECK (tax_amount >= 0),
  total_amount numeric(12, 2) GENERATED ALWAYS AS (net_amount + tax_amount) STORED,
  issued_on date NOT NULL,
  due_on date NOT NULL CHECK (due_on > issued_on)
);

CREATE TABLE payments (
  id bigint PRIMARY KEY,
  reference text NOT NULL UNIQUE,
  invoice_id bigint NOT NULL REFERENCES invoices,
  amount numeric(12, 2) NOT NULL CHECK (amount > 0),
  currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
  method text NOT NULL CHECK (method IN ('bank_transfer', 'direct_debit', 'card', 'cheque')),
  received_at timestamptz NOT NULL
);

INSERT INTO customers
WITH names AS MATERIALIZED (
  SELECT first || ' ' || second AS name, lower(first || '-' || second) AS slug, random() AS place, random() AS origin, random() AS age
  FROM unnest(ARRAY['Amber', 'Anchor', 'Aspen', 'Beacon', 'Birch', 'Bluebird', 'Brightwater', 'Cedar', 'Cobalt', 'Copper',
    'Eastgate', 'Falcon', 'Fjord', 'Granite', 'Greenfield', 'Harbour', 'Hazel', 'Ironbridge', 'Juniper', 'Keystone',
    'Lakeside', 'Meridian', 'Northwind', 'Oakline', 'Pinnacle', 'Redwood', 'Silverton', 'Stonebridge', 'Tidewater',
    'Westbrook']) AS first,
    unnest(ARRAY['Analytics', 'Bakery', 'Brewing', 'Ceramics', 'Clinics', 'Components', 'Engineering', 'Foods',
    'Freight', 'Furniture', 'Glass', 'Hotels', 'Instruments', 'Logistics', 'Optics', 'Packaging', 'Printing',
    'Robotics', 'Software', 'Textiles']) AS second
), numbered AS (
  SELECT *, row_number() OVER (ORDER BY place) AS id FROM names
), placed AS (
  SELECT *, CASE WHEN origin < 0.34 THEN 'DE' WHEN origin < 0.50 THEN 'FR' WHEN origin < 0.64 THEN 'NL'
    WHEN origin < 0.80 THEN 'GB' WHEN origin < 0.92 THEN 'US' ELSE 'SE' END AS country
  FROM numbered
)
SELECT id,
  name || ' ' || (jsonb '{"DE":"GmbH","FR":"SAS","NL":"B.V.","GB":"Ltd","US":"Inc.","SE":"AB"}' ->> country),
  'accounts@' || slug || '.example',
  country,
  CASE country WHEN 'GB' THEN 'GBP' WHEN 'US' THEN 'USD' WHEN 'SE' THEN 'SEK' ELSE 'EUR' END,
  (ARRAY[14, 30, 30, 45])[1 + (age * 1000)::integer % 4],
  date '2021-01-04' + (age * 1500)::integer
FROM placed
ORDER BY id;

INSERT INTO invoices (id, number, customer_id, status, currency, net_amount, tax_amount, issued_on, due_on)
WITH drawn AS MATERIALIZED (
  -- Few customers buy much, many a little; amounts from 40 to 10,000, small ones more often.
  SELECT 1 + floor(600 * power(random(), 1.7))::bigint AS customer_id,
    date '2025-05-10' + floor(random() * 540)::integer AS issued_on,
    round((40 * power(250, random()))::numeric, 2) AS net_amount,
    random() AS fate
  FROM generate_series(1, 5500)
), dated AS (
  SELECT d.*, c.country, c.currency, d.issued_on + c.payment_terms_days AS due_on,
    row_number() OVER (ORDER BY d.issued_on, d.net_amount, d.customer_id) AS id
  FROM drawn d JOIN customers c ON c.id = d.customer_id
)
SELECT id,
  'INV-' || extract(year FROM issued_on)::text || '-' || lpad(id::text, 6, '0'),
  customer_id,
  CASE
    WHEN fate < 0.02 THEN 'void'
    WHEN issued_on > date '2026-10-27' THEN 'draft'
    WHEN due_on >= date '2026-10-31' THEN CASE WHEN fate < 0.30 THEN 'paid' ELSE 'open' END
    WHEN fate < 0.74 THEN 'paid'
    WHEN fate < 0.79 THEN 'partially_paid'
    ELSE 'overdue'
  END,
  currency,
  net_amount,
  round(net_amount * (jsonb '{"DE":0.19,"FR":0.20,"NL":0.21,"GB":0.20,"US":0,"SE":0.25}' ->> country)::numeric, 2),
  issued_on,
  due_on
FROM dated
ORDER BY id;

INSERT INTO payments
WITH drawn AS MATERIALIZED (
  SELECT i.id AS invoice_id, i.status, i.total_amount, i.currency, i.issued_on, i.due_on,
    random() AS halves, round((i.total_amount * (0.3 + 0.4 * random())::numeric), 2) AS first_part,
    random() AS first_when, random() AS second_when, random() AS how
  FROM (SELECT * FROM invoices WHERE status IN ('paid', 'partially_paid') ORDER BY id) i
), parts AS (
  SELECT *, CASE WHEN status = 'paid' AND halves >= 0.05 THEN total_amount ELSE first_part END AS amount,
    first_when AS at FROM drawn
  UNION ALL
  SELECT *, total_amount - first_part, greatest(first_when, second_when) FROM drawn
  WHERE status = 'paid' AND halves < 0.05
), timed AS (
  -- Received from the third day after issue to the tenth after it fell due, never after "today".
  SELECT *, least(issued_on + interval '3 days' + at * (due_on + 7 - issued_on) * interval '1 day',
    timestamp '2026-10-30 17:00' + at * interval '6 hours') AT TIME ZONE 'UTC' AS received_at
  FROM parts
)
SELECT number, 'PAY-' || lpad((number * 7919 % 1000003)::text, 7, '0'), invoice_id, amount, currency,
  (ARRAY['bank_transfer', 'bank_transfer', 'bank_transfer', 'direct_debit', 'direct_debit', 'card', 'card', 'cheque'])
    [1 + floor(how * 8)::integer],
  date_trunc('second', received_at)
FROM (SELECT *, row_number() OVER (ORDER BY received_at, invoice_id, amount) AS number FROM timed) t
ORDER BY number;

CREATE INDEX invoices_of_customer ON invoices (customer_id, issued_on);
CREATE INDEX invoices_by_status ON invoices (status, due_on);
CREATE INDEX payments_of_invoice ON payments (invoice_id);
CREATE INDEX payments_by_time ON payments (received_at);
ANALYZE customers, invoices, payments;

-- The mark of a whole ledger: `prepareLedger` looks for exactly this.
COMMENT ON SCHEMA billing IS 'mayfly demo ledger, version 1';
RESET ROLE;
