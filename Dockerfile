# syntax=docker/dockerfile:1

# The stages share one base, so that what was installed in one runs in the other.
ARG NODE_IMAGE=node:24-slim

FROM ${NODE_IMAGE} AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci
COPY tsconfig.json tsconfig.build.json ./
COPY scripts/ scripts/
COPY src/ src/
COPY providers/ providers/
RUN npm run build

# Without the tools, and without the embedded PostgreSQL of `mayfly dev`.
FROM ${NODE_IMAGE} AS modules
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev --omit=optional

FROM ${NODE_IMAGE}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="mayfly" \
      org.opencontainers.image.description="Ephemeral credential broker for autonomous agents" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
ENV NODE_ENV=production
WORKDIR /app
COPY --from=modules /app/node_modules/ node_modules/
COPY --from=build /app/dist/ dist/
COPY migrations/ migrations/
COPY package.json LICENSE ./
COPY docker/healthcheck.mjs docker/healthcheck.mjs
# The number has a name only for what asks who it is.
RUN groupadd --gid 10001 mayfly && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin mayfly
# A number, so that Kubernetes can tell that it is not root. All files belong to root: the broker writes none of them,
# and runs with a read-only root file system.
USER 10001:10001
EXPOSE 7420
# Kubernetes does not read this; its probes stand in the chart.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["node", "docker/healthcheck.mjs"]
ENTRYPOINT ["node", "dist/src/cli/main.js"]
CMD ["serve"]
