"""Where pairs come from: made here for tests and for the first minutes, or issued by an ACME server."""

import re

from switchyard.engine.effects import replace_file, run
from switchyard.engine.layout import ACME, ACME_WEBROOT
from switchyard.errors import SwitchyardError
from switchyard.names import AppName
from switchyard.tls.pairs import Pair
from switchyard.tls.store import Settings

SELF_SIGNED_DAYS = 397
"""Some clients refuse a certificate that is valid for longer, whoever made it."""
OBTAIN_SECONDS = 300.0


def self_signed(names: list[str]) -> Pair:
    """Make a pair that nobody vouches for."""
    kinds = [f"{'IP' if re.fullmatch(r'[0-9.]+|.*:.*', name) else 'DNS'}:{name}" for name in names]
    made = run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"),
            *("-days", str(SELF_SIGNED_DAYS), "-subj", "/CN=Switchyard self-signed"),
            *("-addext", f"subjectAltName={','.join(kinds)}", "-keyout", "/dev/stdout", "-out", "/dev/stdout"),
        ],
        step="tls.self_signed",
    )
    key = re.search(r"-----BEGIN PRIVATE KEY-----.*?-----END PRIVATE KEY-----\n", made.out, re.DOTALL)
    certificate = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", made.out, re.DOTALL)
    if not key or not certificate:
        raise SwitchyardError("openssl made no certificate and key.")
    return Pair(certificate[0], key[0])


def obtain(name: AppName, settings: Settings) -> Pair:
    """Have the ACME server issue a pair, by HTTP-01 through the edge; raises `SwitchyardError` with its reason."""
    home = ACME / str(name)
    environment = {}
    if settings.authority:
        replace_file(home / "authority.pem", settings.authority, step="tls.authority")
        environment["REQUESTS_CA_BUNDLE"] = str(home / "authority.pem")
    account = ["--email", settings.email, "--no-eff-email"] if settings.email else ["--register-unsafely-without-email"]
    folders = [word for part in ("config", "work", "logs") for word in (f"--{part}-dir", str(home / part))]
    argv = [
        *("certbot", "certonly", "--non-interactive", "--agree-tos", "--no-directory-hooks", *account, *folders),
        *("--server", settings.directory, "--webroot", "--webroot-path", str(ACME_WEBROOT)),
        # This engine decides when; a pair of before is no reason not to issue, nor are other names.
        *("--cert-name", str(name), "--force-renewal", "--renew-with-new-domains", "--key-type", "ecdsa"),
        *("--max-log-backups", "20"),
        *settings.options,
        *(word for item in settings.names for word in ("--domain", item)),
    ]
    answer = run(argv, step="tls.obtain", timeout=OBTAIN_SECONDS, environment=environment, check=False)
    if answer.code != 0:
        raise SwitchyardError(f"{settings.directory} issued no certificate: {reason(answer.out + answer.err)}")
    pair = issued(name)
    if pair is None:
        raise SwitchyardError(f"certbot left no pair below {home}/config/live.")
    return pair


def issued(name: AppName) -> Pair | None:
    """What the ACME server issued last, if anything."""
    live = ACME / str(name) / "config" / "live" / str(name)
    try:
        return Pair((live / "fullchain.pem").read_text(), (live / "privkey.pem").read_text())
    except OSError:
        return None


def reason(output: str) -> str:
    """The most telling lines of what certbot said."""
    details = re.findall(r"^\s*(?:Domain|Detail|Type): *(.*)", output, re.MULTILINE)
    if details:
        return "; ".join(dict.fromkeys(details))
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    noise = ("Saving debug log", "Ask for help", "- - -", "Some challenges")
    telling = [line for line in lines if not line.startswith(noise)]
    return telling[-1] if telling else "certbot said nothing"
