"""JSON Web Tokens of a provider that really answers, and what attackers make of them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from jamjet_auth import keys
from jamjet_auth.json_web_tokens import FRESH, JsonWebTokens
from jamjet_auth.settings import AuthSettings
from jamjet_kernel import Forbidden, PluginError, Principal, Role, Unauthenticated

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def described(kid: str | None, key: Any, **more: Any) -> dict[str, Any]:
    """A public key as a JSON Web Key."""
    algorithms: dict[type, Any] = {
        rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
        ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
        ed25519.Ed25519PrivateKey: jwt.algorithms.OKPAlgorithm,
    }
    algorithm = next(algorithm for kind, algorithm in algorithms.items() if isinstance(key, kind))
    found = json.loads(algorithm.to_jwk(key.public_key()))
    return found | ({} if kid is None else {"kid": kid}) | more


class Provider:
    """Serves its keys, and counts how often it is asked for them."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = [described("rsa", RSA), described("ec", EC), described("ed", ED)]
        self.asked: list[str] = []
        self.is_down = False
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked.append(self.path)
                self.send_response(503 if provider.is_down else 200)
                self.end_headers()
                self.wfile.write(json.dumps(provider.answer(self.path)).encode())

            def log_message(self, format: str, *arguments: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def answer(self, path: str) -> Any:
        if path.endswith("openid-configuration"):
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        return {"keys": self.keys}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    provider = Provider()
    yield provider
    provider.close()


@pytest.fixture
def asked(provider: Provider) -> JsonWebTokens:
    return authenticator(provider)


class Clock:
    def __init__(self) -> None:
        self.ahead = 0

    def __call__(self) -> int:
        return int(time.time() * 1000) + self.ahead


def authenticator(provider: Provider, clock: Callable[[], int] | None = None, **settings: Any) -> JsonWebTokens:
    chosen = AuthSettings(**{"jwt_issuer": provider.url, "jwt_audience": ("jamjet",), **settings})
    return JsonWebTokens(chosen, clock or Clock())


def claims(provider: Provider, **changes: Any) -> dict[str, Any]:
    """What None is left out."""
    now = int(time.time())
    told = {"iss": provider.url, "aud": "jamjet", "sub": "anna", "iat": now, "exp": now + 300, "role": "developer"}
    return {name: value for name, value in (told | changes).items() if value is not None}


def signed(
    provider: Provider, key: Any = RSA, algorithm: str = "RS256", kid: str | None = "rsa", **changes: Any
) -> str:
    head = {} if kid is None else {"kid": kid}
    return jwt.encode(claims(provider, **changes), key, algorithm, headers=head)


async def principal_of(asked: JsonWebTokens, credential: str) -> Principal | None:
    return await asked.authenticate({"Authorization": f"Bearer {credential}"}.get)


async def refused(asked: JsonWebTokens, credential: str) -> bool:
    try:
        await principal_of(asked, credential)
    except Unauthenticated as error:
        return str(error) == "invalid or expired token"
    return False


# What is taken


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"),
    [(RSA, "RS256", "rsa"), (RSA, "PS512", "rsa"), (EC, "ES256", "ec"), (ED, "EdDSA", "ed")],
)
async def test_a_token_of_the_provider_is_taken(
    provider: Provider, asked: JsonWebTokens, key: Any, algorithm: str, kid: str
) -> None:
    found = await principal_of(asked, signed(provider, key, algorithm, kid))

    assert found == Principal("user:anna", "default", Role.DEVELOPER)


async def test_the_keys_are_found_by_discovery_and_fetched_once(provider: Provider, asked: JsonWebTokens) -> None:
    for n in range(5):
        await principal_of(asked, signed(provider, sub=f"user-{n}"))

    assert provider.asked == ["/.well-known/openid-configuration", "/keys"]


async def test_the_keys_may_be_at_a_place_that_is_set(provider: Provider) -> None:
    asked = authenticator(provider, jwt_issuer="https://login.example.com", jwt_jwks_url=f"{provider.url}/elsewhere")

    assert await principal_of(asked, signed(provider, iss="https://login.example.com")) is not None
    assert provider.asked == ["/elsewhere"]


async def test_a_token_for_several_audiences_is_for_us_too(provider: Provider, asked: JsonWebTokens) -> None:
    assert await principal_of(asked, signed(provider, aud=["other", "jamjet"])) is not None


async def test_a_signature_is_verified_once_a_minute(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    asked = authenticator(provider, clock)
    verified = []
    decode = jwt.decode
    monkeypatch.setattr(jwt, "decode", lambda *given, **named: verified.append(1) or decode(*given, **named))
    token = signed(provider)

    for _ in range(10):
        await principal_of(asked, token)
    clock.ahead += FRESH + 1
    await principal_of(asked, token)

    assert len(verified) == 2


async def test_what_looks_like_no_json_web_token_is_left_to_others(asked: JsonWebTokens) -> None:
    for credential in ("jam_abc", "a.b.c", "ey.b", ""):
        assert await principal_of(asked, credential) is None


# Roles and tenants


@pytest.mark.parametrize(
    ("settings", "told", "role"),
    [
        ({}, {"role": ["viewer", "operator"]}, Role.OPERATOR),
        ({}, {"role": "viewer reviewer"}, Role.REVIEWER),
        ({"jwt_role_claim": "realm_access.roles"}, {"realm_access": {"roles": ["x", "viewer"]}}, Role.VIEWER),
        ({"jwt_role_claim": "https://x.com/role"}, {"https://x.com/role": "operator"}, Role.OPERATOR),
        ({"jwt_roles": {"jamjet admins": Role.OPERATOR}}, {"role": ["jamjet admins"]}, Role.OPERATOR),
    ],
)
async def test_the_role_is_read_from_a_claim(
    provider: Provider, settings: dict[str, Any], told: dict[str, Any], role: Role
) -> None:
    found = await principal_of(authenticator(provider, **settings), signed(provider, **told))

    assert found is not None
    assert found.role is role


@pytest.mark.parametrize("told", [{"role": None}, {"role": "root"}, {"role": 7}, {"role": {"operator": True}}])
async def test_without_a_role_that_is_known_nothing_is_allowed(
    provider: Provider, asked: JsonWebTokens, told: dict[str, Any]
) -> None:
    with pytest.raises(Forbidden, match="insufficient role"):
        await principal_of(asked, signed(provider, **told))


async def test_with_roles_that_are_set_the_plain_names_mean_nothing(provider: Provider) -> None:
    asked = authenticator(provider, jwt_roles={"admins": Role.OPERATOR})

    with pytest.raises(Forbidden):
        await principal_of(asked, signed(provider, role="operator"))


async def test_the_tenant_is_read_from_a_claim_where_one_is_set(provider: Provider) -> None:
    asked = authenticator(provider, jwt_tenant_claim="org")

    found = await principal_of(asked, signed(provider, org="acme"))

    assert found is not None
    assert found.tenant_id == "acme"
    for org in (None, "", 7, "a\0b", ["acme"], "x" * 300):
        assert await refused(asked, signed(provider, org=org)), org


# Attacks


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": "another application"},
        {"aud": None},
        {"aud": []},
        {"sub": None},
        {"sub": ""},
        {"sub": "a\nb"},
        {"exp": None},
        {"exp": "never"},
        {"exp": 1},
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"exp": [9999999999]},
        {"exp": True},
        {"nbf": "later"},
    ],
)
async def test_claims_that_are_not_ours_are_refused(
    provider: Provider, asked: JsonWebTokens, changes: dict[str, Any]
) -> None:
    head = {"alg": "RS256", "kid": "rsa"}

    assert await principal_of(asked, assembled(head, claims(provider), RSA)) is not None
    assert await refused(asked, assembled(head, claims(provider, **changes), RSA))


async def test_clocks_may_differ_by_half_a_minute(provider: Provider, asked: JsonWebTokens) -> None:
    now = int(time.time())

    assert await principal_of(asked, signed(provider, exp=now - 20, nbf=now + 20)) is not None
    assert await refused(asked, signed(provider, exp=now - 40))
    assert await refused(asked, signed(provider, nbf=now + 40))


async def test_a_remembered_token_ends_when_it_was_to_end(provider: Provider) -> None:
    clock = Clock()
    asked = authenticator(provider, clock)
    token = signed(provider, exp=int(time.time()) - 28)
    assert await principal_of(asked, token) is not None

    time.sleep(2.1)

    assert await refused(asked, token)


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE"])
async def test_a_token_without_a_signature_is_refused(provider: Provider, asked: JsonWebTokens, algorithm: str) -> None:
    forged = f"{part({'alg': algorithm, 'kid': 'rsa'})}.{part(claims(provider, role='operator'))}."

    assert await refused(asked, forged)
    assert await refused(asked, forged + signed(provider).rpartition(".")[2])


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("format", [PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1])
async def test_the_public_key_is_no_secret_to_sign_with(
    provider: Provider, asked: JsonWebTokens, algorithm: str, format: PublicFormat
) -> None:
    secret = RSA.public_key().public_bytes(Encoding.PEM, format)
    content = f"{part({'alg': algorithm, 'kid': 'rsa'})}.{part(claims(provider, role='operator'))}"
    digest = hmac.new(secret, content.encode(), f"sha{algorithm[2:]}").digest()

    assert await refused(asked, f"{content}.{encoded(digest)}")


async def test_a_symmetric_key_is_never_used(provider: Provider, asked: JsonWebTokens) -> None:
    secret = b"s" * 32
    provider.keys = [{"kty": "oct", "kid": "shared", "k": encoded(secret)}]

    assert await refused(asked, jwt.encode(claims(provider), secret, "HS256", headers={"kid": "shared"}))
    content = f"{part({'alg': 'RS256', 'kid': 'shared'})}.{part(claims(provider))}"
    assert await refused(asked, f"{content}.{encoded(hmac.new(secret, content.encode(), hashlib.sha256).digest())}")


async def test_a_key_signs_with_its_own_algorithm_only(provider: Provider, asked: JsonWebTokens) -> None:
    provider.keys = [described("rsa", RSA, alg="RS256"), described("enc", OTHER_RSA, use="enc")]

    assert await principal_of(asked, signed(provider)) is not None
    assert await refused(asked, signed(provider, algorithm="RS512"))
    assert await refused(asked, signed(provider, OTHER_RSA, kid="enc"))
    assert await refused(asked, assembled({"alg": "ES256", "kid": "rsa"}, claims(provider), RSA))


@pytest.mark.parametrize("header", ["jwk", "jku", "x5u"])
async def test_a_key_that_the_token_brings_is_not_used(provider: Provider, asked: JsonWebTokens, header: str) -> None:
    attackers = Provider()
    attackers.keys = [described("evil", OTHER_RSA)]
    try:
        value = attackers.keys[0] if header == "jwk" else f"{attackers.url}/keys"
        for kid in ("rsa", "evil"):
            forged = jwt.encode(claims(provider), OTHER_RSA, "RS256", headers={"kid": kid, header: value})
            assert await refused(asked, forged)
        assert attackers.asked == []
    finally:
        attackers.close()


async def test_a_token_that_was_changed_is_refused(provider: Provider, asked: JsonWebTokens) -> None:
    head, body, signature = signed(provider, role="viewer").split(".")

    assert await refused(asked, f"{head}.{part(claims(provider, role='operator'))}.{signature}")
    for cut in (f"{head}.{body}.", f"{head}.{body}.{signature[:-4]}", f"{head}..{signature}", f"{head}.{body}.AAAA"):
        assert await refused(asked, cut)


@pytest.mark.parametrize(
    "head",
    [
        b"{}",
        b"[]",
        b"null",
        b"{",
        b'{"alg":7}',
        b'{"alg":"RS256","kid":7}',
        b'{"alg":"RS256","kid":["rsa"]}',
        b'{"alg":"RS256","kid":"rsa","crit":["exp"]}',
        b'{"alg":"RS256","kid":"../../etc/passwd"}',
        b'{"alg":"RS256","kid":"\' OR 1=1 --"}',
        b'{"a":' * 2000 + b"1" + b"}" * 2000,
        b"\xff\xfe",
    ],
)
async def test_a_header_that_makes_no_sense_is_refused(provider: Provider, asked: JsonWebTokens, head: bytes) -> None:
    first = encoded(head)
    forged = f"{first if first.startswith('ey') else 'ey' + first}.{part(claims(provider))}.AAAA"

    assert await refused(asked, forged)


async def test_a_very_long_token_is_not_even_read(provider: Provider, asked: JsonWebTokens) -> None:
    assert await refused(asked, "ey" + "a" * 100_000 + ".b.c")
    assert provider.asked == []


# Rotation


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def now() -> None:
        monkeypatch.setattr(keys, "PAUSE", 0.0)

    return now


async def test_a_key_that_is_new_is_fetched(
    provider: Provider, asked: JsonWebTokens, impatient: Callable[[], None]
) -> None:
    await principal_of(asked, signed(provider))
    provider.keys = [described("next", OTHER_RSA)]
    impatient()

    assert await principal_of(asked, signed(provider, OTHER_RSA, kid="next")) is not None
    assert await refused(asked, signed(provider, sub="late", kid="rsa"))


async def test_invented_key_ids_do_not_make_us_ask_again_and_again(provider: Provider, asked: JsonWebTokens) -> None:
    await principal_of(asked, signed(provider))

    for n in range(20):
        assert await refused(asked, signed(provider, kid=f"invented-{n}"))

    assert provider.asked.count("/keys") == 1


async def test_keys_stay_while_the_provider_is_down(
    provider: Provider, asked: JsonWebTokens, impatient: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    await principal_of(asked, signed(provider))
    provider.is_down = True
    impatient()
    monkeypatch.setattr(keys, "LASTS", 0.0)

    assert await principal_of(asked, signed(provider, sub="another")) is not None
    assert provider.asked.count("/keys") == 2


async def test_without_any_keys_nobody_is_let_in(
    provider: Provider, asked: JsonWebTokens, caplog: pytest.LogCaptureFixture
) -> None:
    provider.is_down = True

    assert await refused(asked, signed(provider))
    assert "cannot be fetched" in caplog.text


async def test_the_configuration_of_another_issuer_is_not_believed(provider: Provider) -> None:
    asked = authenticator(provider, jwt_issuer=f"{provider.url}/tenant-a")

    assert await refused(asked, signed(provider, iss=f"{provider.url}/tenant-a"))
    assert "/keys" not in provider.asked


async def test_a_token_without_a_key_id_means_the_only_key(
    provider: Provider, asked: JsonWebTokens, impatient: Callable[[], None]
) -> None:
    assert await refused(asked, signed(provider, kid=None))
    impatient()
    provider.keys = [described("only", RSA)]

    assert await principal_of(asked, signed(provider, kid=None)) is not None


@pytest.mark.parametrize(
    "published", [{"kty": "RSA", "kid": "rsa", "n": "!", "e": "AQAB"}, {"kid": "rsa"}, "rsa", None, 7]
)
async def test_a_key_that_makes_no_sense_leaves_the_others_alone(
    provider: Provider, asked: JsonWebTokens, published: Any
) -> None:
    provider.keys = [published, described("ec", EC)]

    assert await principal_of(asked, signed(provider, EC, "ES256", "ec")) is not None


# Settings


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ISSUER": "https://login.example.com",
        "AUDIENCE": "a, b",
        "ROLES": "jamjet=admins=operator, staff=viewer",
        "TENANT_CLAIM": "",
    }.items():
        monkeypatch.setenv(f"JAMJET_JWT_{name}", value)

    settings = AuthSettings.read()

    assert settings.jwt_audience == ("a", "b")
    assert settings.jwt_roles == {"jamjet=admins": Role.OPERATOR, "staff": Role.VIEWER}
    assert settings.jwt_tenant_claim is None


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"JAMJET_JWT_ISSUER": "https://x.example"}, "JAMJET_JWT_AUDIENCE"),
        ({"JAMJET_JWT_ROLES": "admins=root"}, "JAMJET_JWT_ROLES"),
        ({"JAMJET_BOOTSTRAP_TOKEN": "with a blank"}, "JAMJET_BOOTSTRAP_TOKEN"),
    ],
)
def test_a_setting_that_is_not_valid_is_named(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(PluginError, match=message) as refused:
        AuthSettings.read()

    assert "with a blank" not in str(refused.value)


# By hand


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def part(value: dict[str, Any]) -> str:
    return encoded(json.dumps(value, separators=(",", ":")).encode())


def assembled(head: dict[str, Any], body: dict[str, Any], key: Any) -> str:
    """Signed as RS256, whatever the header says."""
    content = f"{part(head)}.{part(body)}"
    signature = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).sign(content.encode(), key)
    return f"{content}.{encoded(signature)}"
