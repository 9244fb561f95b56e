"""The plugin's own rules, in plain Python: README.md has the command. In the gateway, its tests run the component."""

import hashlib
import hmac
import json
import unittest

from componentize_py_types import Err
from wit_world.imports import crypto
from wit_world.imports.types import Header, Lane, RequestHead

import tenant

# What the gateway gives; the generated functions only raise.
crypto.sha256 = lambda data: hashlib.sha256(data).digest()
crypto.equal = hmac.compare_digest

SETTINGS = {
    "valid_for_ms": 5000,
    "tenants": {
        "acme": {
            "tokens": {
                "search": hashlib.sha256(b"acme-search").hexdigest(),
                "import": hashlib.sha256(b"acme-import").hexdigest().upper(),
            },
            "allowed_models": ["bge-*"],
            "lane": "bulk",
            "limit": "small",
        },
        "globex": {"tokens": {"all": hashlib.sha256(b"globex").hexdigest()}},
    },
}


def init(settings):
    tenant.Lifecycle().init(settings if isinstance(settings, str) else json.dumps(settings))


def authenticate(*headers):
    head = RequestHead("1", "POST", "/v1/embeddings", [], [Header(*header) for header in headers], "127.0.0.1")
    return tenant.Authenticator().authenticate(head)


class AuthenticateTest(unittest.TestCase):
    def setUp(self):
        init(SETTINGS)

    def assert_rejected(self, status, *headers):
        with self.assertRaises(Err) as caught:
            authenticate(*headers)
        self.assertEqual(caught.exception.value.status, status)
        return caught.exception.value

    def test_a_token_of_the_tenant_lets_in(self):
        principal = authenticate(("x-tenant", "acme"), ("authorization", "Bearer acme-import"))
        self.assertEqual((principal.subject, principal.tenant), ("acme/import", "acme"))
        self.assertEqual((principal.allowed_models, principal.lane, principal.limit), (["bge-*"], Lane.BULK, "small"))
        self.assertEqual((principal.cache_namespace, principal.valid_for_ms), ("tenant/acme", 5000))

    def test_a_tenant_without_rules_may_use_every_model(self):
        principal = authenticate(("x-tenant", "globex"), ("authorization", "bearer globex"))
        self.assertEqual((principal.allowed_models, principal.lane, principal.limit), (None, None, None))

    def test_without_a_tenant_the_next_authenticator_is_asked(self):
        self.assertIsNone(authenticate(("authorization", "Bearer acme-import")))

    def test_a_token_of_another_tenant_is_refused_as_an_unknown_tenant_is(self):
        wrong = self.assert_rejected(401, ("x-tenant", "globex"), ("authorization", "Bearer acme-import"))
        unknown = self.assert_rejected(401, ("x-tenant", "initech"), ("authorization", "Bearer acme-import"))
        self.assertEqual(wrong, unknown)
        self.assertEqual(wrong.headers, [Header("www-authenticate", "Bearer")])

    def test_a_tenant_without_a_bearer_token_is_refused(self):
        self.assert_rejected(401, ("x-tenant", "acme"))
        self.assert_rejected(401, ("x-tenant", "acme"), ("authorization", "Basic YTpi"))
        self.assert_rejected(401, ("x-tenant", "acme"), ("authorization", "Bearer  "))

    def test_a_header_that_is_there_twice_is_refused(self):
        self.assert_rejected(400, ("x-tenant", "acme"), ("x-tenant", "globex"), ("authorization", "Bearer globex"))


class SettingsTest(unittest.TestCase):
    def assert_refused(self, settings, message):
        with self.assertRaises(Err) as caught:
            init(settings)
        self.assertIn(message, caught.exception.value)

    def test_wrong_settings_are_named(self):
        digest = "0" * 64
        self.assert_refused("{", "Expecting property name")
        self.assert_refused([], "settings must be a table")
        self.assert_refused({}, "setting tenants must be a table")
        self.assert_refused({"tenant": {}}, "unknown setting 'tenant' in settings: use tenants, valid_for_ms")
        self.assert_refused({"tenants": {"a b": {}}}, "names in tenants must be")
        self.assert_refused({"tenants": {"a": {"tokens": {}}}}, "setting tenants.a.tokens must be a table")
        self.assert_refused({"tenants": {"a": {"tokens": {"t": digest}, "lane": []}}}, "setting tenants.a.lane must be")
        self.assert_refused({"tenants": {"a": {"tokens": {"t": digest}}}, "valid_for_ms": True}, "valid_for_ms must be")

    def test_a_token_in_place_of_its_digest_is_not_repeated(self):
        with self.assertRaises(Err) as caught:
            init({"tenants": {"a": {"tokens": {"t": "my-secret"}}}})
        self.assertIn("tenants.a.tokens.t must be the token's SHA-256", caught.exception.value)
        self.assertNotIn("my-secret", caught.exception.value)


if __name__ == "__main__":
    unittest.main()
