"""The sample application's settings, faults and log lines: the part of it that needs no web framework."""

import importlib
import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

API = Path(__file__).resolve().parents[2] / "examples" / "sample" / "api"
URL = "postgresql://app:secret@db/desk"


@pytest.fixture(autouse=True)
def sample_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(API))


def load(module: str) -> Any:
    return importlib.import_module(f"parcel_desk.{module}")


def read(**environ: str) -> Any:
    return load("settings").Settings.from_environ(environ)


def refusal(**environ: str) -> str:
    with pytest.raises(load("values").ConfigurationError) as caught:
        read(**environ)
    return str(caught.value)


def test_defaults() -> None:
    settings = read(DATABASE_URL=URL)
    assert settings.database_url == "postgresql+psycopg://app:secret@db/desk"
    assert (settings.pool_size, settings.port, str(settings.upload_dir)) == (5, 8000, "/data/uploads")
    assert settings.faults == load("faults").Faults()


def test_the_settings_can_be_printed_without_the_password() -> None:
    assert "secret" not in repr(read(DATABASE_URL=URL))


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgresql+asyncpg"])
def test_the_usual_schemes_all_get_the_installed_driver(scheme: str) -> None:
    assert read(DATABASE_URL=f"{scheme}://db/desk").database_url == "postgresql+psycopg://db/desk"


def test_a_file_comes_before_the_variable(tmp_path: Path) -> None:
    file = tmp_path / "DATABASE_URL"
    file.write_text("postgresql://from-file/desk\n")
    settings = read(DATABASE_URL=URL, DATABASE_URL_FILE=str(file))
    assert settings.database_url == "postgresql+psycopg://from-file/desk"


def test_migrations_prefer_their_own_url() -> None:
    url = load("settings").migration_database_url
    assert url({"DATABASE_URL": URL}).endswith("@db/desk")
    both = {"DATABASE_URL": URL, "MIGRATION_DATABASE_URL": "postgresql://owner@db/desk"}
    assert url(both) == "postgresql+psycopg://owner@db/desk"


def test_wrong_values_are_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    assert refusal() == "No database is configured: set DATABASE_URL or DATABASE_URL_FILE."
    assert refusal(DATABASE_URL_FILE="/nowhere").startswith("DATABASE_URL_FILE cannot be read: No such file")
    assert refusal(DATABASE_URL_FILE=str(empty)).startswith("DATABASE_URL_FILE names an empty file")
    assert refusal(DATABASE_URL="mysql://app:secret@db") == "DATABASE_URL must start with postgresql://."
    assert "DATABASE_POOL_SIZE must be a whole number from 1 to 200, not '2.5'" in refusal(
        DATABASE_URL=URL, DATABASE_POOL_SIZE="2.5"
    )


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("FAULT_HEALTH", "500"),
        ("FAULT_ERROR_RATE", "1.5"),
        ("FAULT_DELAY", "nan"),
        ("FAULT_START_DELAY", "-1"),
        ("FAULT_EXIT_AFTER", "soon"),
        ("FAULT_IGNORE_SIGTERM", "yes"),
    ],
)
def test_a_misspelt_fault_stops_the_start(name: str, wrong: str) -> None:
    message = refusal(DATABASE_URL=URL, **{name: wrong})
    assert message.startswith(f"{name} must be ")
    assert repr(wrong) in message


def test_faults_are_read() -> None:
    faults = read(DATABASE_URL=URL, FAULT_HEALTH="hang", FAULT_ERROR_RATE="0.5", FAULT_IGNORE_SIGTERM="1").faults
    assert (faults.health, faults.error_rate, faults.ignore_sigterm) == ("hang", 0.5, True)


def test_a_log_record_is_one_line_of_json() -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        trouble = sys.exc_info()
    record = logging.LogRecord("access", logging.INFO, "file", 1, "went %s", ("well",), trouble)
    record.fields = {"status": 200}
    line = load("logs").JsonFormatter().format(record)
    assert "\n" not in line
    parsed = json.loads(line)
    assert (parsed["message"], parsed["level"], parsed["status"]) == ("went well", "info", 200)
    assert parsed["time"].endswith("Z")
    assert "second" in parsed["exception"]
