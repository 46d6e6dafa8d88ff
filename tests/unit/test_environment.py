"""A misspelt setting in the environment is told, with the name that was meant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import engine
from engine.config import Settings
from engine.environment import NOT_SETTINGS, refuse_unknown, setting_names
from engine.errors import ConfigError

ROOT = Path(engine.__file__).parent.parent


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("OFFHOOK_DATAA", "OFFHOOK_DATA"),
        ("OFFHOOK_AMI__SECRETT", "OFFHOOK_AMI__SECRET"),
        ("OFFHOOK_AMI_SECRET", "OFFHOOK_AMI__SECRET"),
        ("OFFHOOK_AMI__HOSTNAME", "OFFHOOK_AMI__HOST"),
        ("OFFHOOK_LIMIT__CALLS", "OFFHOOK_LIMITS__CALLS"),
        ("offhook_log_levle", "OFFHOOK_LOG_LEVEL"),
        ("OFFHOOK_DATA__FOLDER", "OFFHOOK_MODELS__FOLDER"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_nearest_one(wrong: str, meant: str) -> None:
    with pytest.raises(ConfigError) as told:
        refuse_unknown(Settings, {wrong: "x", "PATH": "/bin"})
    assert wrong in told.value.message
    assert f"{wrong}: did you mean {meant}?" in told.value.how_to_fix


def test_the_value_is_never_told() -> None:
    with pytest.raises(ConfigError) as told:
        refuse_unknown(Settings, {"OFFHOOK_AMI_SECRET": "hunter2"})
    assert "hunter2" not in told.value.message + "".join(told.value.how_to_fix)


def test_a_name_near_nothing_is_to_be_unset() -> None:
    with pytest.raises(ConfigError) as told:
        refuse_unknown(Settings, {"OFFHOOK_XYZZY": "", "OFFHOOK_QQQQQ": ""})
    assert told.value.how_to_fix[:2] == ("unset OFFHOOK_QQQQQ", "unset OFFHOOK_XYZZY")


def test_every_setting_is_let_in_in_any_case() -> None:
    names = set(setting_names(Settings))
    assert {"OFFHOOK_DATA", "OFFHOOK_AMI", "OFFHOOK_AMI__SECRET", "OFFHOOK_ROUTES"} <= names
    refuse_unknown(Settings, dict.fromkeys(names | NOT_SETTINGS, "x"))
    refuse_unknown(Settings, {"offhook_ami__secret": "x", "OFFHOOKED": "x"})


def test_what_kubernetes_adds_is_let_in() -> None:
    refuse_unknown(
        Settings,
        {
            "OFFHOOK_SERVICE_HOST": "10.0.0.1",
            "OFFHOOK_SERVICE_PORT": "8080",
            "OFFHOOK_SERVICE_PORT_HTTP": "8080",
            "OFFHOOK_PORT": "tcp://10.0.0.1:8080",
            "OFFHOOK_PORT_8080_TCP": "tcp://10.0.0.1:8080",
            "OFFHOOK_PORT_8080_TCP_ADDR": "10.0.0.1",
            "OFFHOOK_DB_SERVICE_HOST": "10.0.0.2",
        },
    )
    with pytest.raises(ConfigError, match="OFFHOOK_AGI_PORT"):
        refuse_unknown(Settings, {"OFFHOOK_AGI_PORT": "4573"})


def test_whatever_our_own_code_and_scripts_read_is_known() -> None:
    read = re.compile(r"""(?:environ\S*?["']|\$\{|export [A-Z_=1 ]*)(OFFHOOK_[A-Z_]+)(?=["':=])""")
    files = [*ROOT.glob("engine/**/*.py"), ROOT / "tests" / "conftest.py"]
    files += [path for path in ROOT.glob("scripts/*") if path.is_file()]
    files += [ROOT / "asterisk" / "sandbox" / "build"]
    found = {name for path in files for name in read.findall(path.read_text())}
    assert found == NOT_SETTINGS
