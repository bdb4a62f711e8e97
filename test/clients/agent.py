"""An agent that is not ours: one task by proofs of possession (RFC 9449), with PyJWT and cryptography alone.

It makes a key, says the key's thumbprint in a line of JSON, reads a line with what it was given, and says in a line
each what was answered: to a call without a proof, when it opened the task, had a credential, ended the task, and
looked at it with another key.
"""

import base64
import hashlib
import json
import sys
import time
import urllib.error
import urllib.request
import uuid

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value, length=None):
    return base64url(value.to_bytes(length or (value.bit_length() + 7) // 8, "big"))


class Key:
    def __init__(self, algorithm):
        self.algorithm = algorithm
        if algorithm == "ES256":
            self.private = ec.generate_private_key(ec.SECP256R1())
            point = self.private.public_key().public_numbers()
            self.jwk = {"crv": "P-256", "kty": "EC", "x": number(point.x, 32), "y": number(point.y, 32)}
        elif algorithm == "EdDSA":
            self.private = ed25519.Ed25519PrivateKey.generate()
            raw = self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
            self.jwk = {"crv": "Ed25519", "kty": "OKP", "x": base64url(raw)}
        else:
            self.private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            public = self.private.public_key().public_numbers()
            self.jwk = {"e": number(public.e), "kty": "RSA", "n": number(public.n)}

    def thumbprint(self):
        # RFC 7638 §3: the members in their order, without white space.
        text = json.dumps(self.jwk, sort_keys=True, separators=(",", ":"))
        return base64url(hashlib.sha256(text.encode()).digest())

    def prove(self, method, url, token, nonce):
        claims = {
            "jti": str(uuid.uuid4()),
            "htm": method,
            "htu": url,
            "iat": int(time.time()),
            "ath": base64url(hashlib.sha256(token.encode()).digest()),
        }
        if nonce is not None:
            claims["nonce"] = nonce
        headers = {"typ": "dpop+jwt", "jwk": self.jwk}
        return jwt.encode(claims, self.private, algorithm=self.algorithm, headers=headers)


class Agent:
    def __init__(self, url, token, key):
        self.url = url
        self.token = token
        self.key = key
        self.nonce = None

    def call(self, method, path, body=None):
        """The status and the body of the answer; once more where the broker gave a nonce to use (§9)."""
        status, answer = self.ask(method, path, body)
        if status == 401 and answer.get("code") == "use_dpop_nonce":
            return self.ask(method, path, body)
        return status, answer

    def ask(self, method, path, body):
        headers = {"Authorization": f"Bearer {self.token}"}
        if self.key is not None:
            headers["DPoP"] = self.key.prove(method, self.url + path, self.token, self.nonce)
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        asked = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        try:
            answer = urllib.request.urlopen(asked, timeout=60)
        except urllib.error.HTTPError as refusal:
            answer = refusal
        with answer:
            self.nonce = answer.headers.get("DPoP-Nonce", self.nonce)
            return answer.status, json.load(answer)


def say(**line):
    print(json.dumps(line), flush=True)


def main():
    algorithm = sys.argv[1]
    key = Key(algorithm)
    say(jkt=key.thumbprint())
    given = json.loads(sys.stdin.readline())

    bare = Agent(given["url"], given["token"], None)
    status, answer = bare.call("POST", "/v1/tasks", {"request": given["request"]})
    say(step="without a proof", status=status, code=answer.get("code"))

    agent = Agent(given["url"], given["token"], key)
    status, answer = agent.call("POST", "/v1/tasks", {"request": given["request"]})
    task = "/v1/tasks/" + answer.get("task", {}).get("id", "none")
    say(step="open", status=status, code=answer.get("code"))
    status, answer = agent.call("POST", task + "/grants", {"entitlement": given["entitlement"]})
    username = answer.get("credential", {}).get("username")
    say(step="mint", status=status, code=answer.get("code"), username=username)
    status, answer = agent.call("POST", task + "/complete?wait=30", {})
    say(step="complete", status=status, code=answer.get("code"), state=answer.get("task", {}).get("state"))

    thief = Agent(given["url"], given["token"], Key(algorithm))
    status, answer = thief.call("GET", task)
    say(step="with another key", status=status, code=answer.get("code"))


main()
