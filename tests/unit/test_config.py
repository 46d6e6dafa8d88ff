from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.config import load_agent, load_agents, load_settings
from engine.errors import ConfigError

AGENT = 'name = "R"\nlanguages = ["en"]\ngreeting = "Hello."\nprompt = "Be brief."\n'


@pytest.fixture(autouse=True)
def _nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OFFHOOK_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("offhook.toml").write_text('data = "a"\n[ami]\nhost = "b"\nusername = "c"\n')
    monkeypatch.setenv("OFFHOOK_AMI__HOST", "d")
    monkeypatch.setenv("OFFHOOK_ROUTES", '[{"number": "700", "agent": "reception"}]')
    settings = load_settings()
    assert (str(settings.data), settings.ami.host, settings.ami.username) == ("a", "d", "c")
    assert settings.routes[0].agent == "reception"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("OFFHOOK_DATAA", "x", "OFFHOOK_DATAA"),
        ("OFFHOOK_AMI__SECRETT", "x", "OFFHOOK_AMI__SECRETT"),
        ("OFFHOOK_LIMITS__CALLS", "many", "limits.calls"),
        ("OFFHOOK_ROUTES", "700=reception", 'field "routes"'),
    ],
)
def test_a_wrong_environment_is_told_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as told:
        load_settings()
    assert sentence in told.value.message and told.value.how_to_fix


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"data = \n", "is not TOML"),
        (b'data = "\xff"\n', "is not TOML"),
        (b"surprise = 1\n", "surprise"),
        (b"[ami]\nsecrett = 'x'\n", "ami.secrett"),
    ],
)
def test_a_wrong_file_is_told_with_a_way_out(text: bytes, sentence: str) -> None:
    Path("offhook.toml").write_bytes(text)
    with pytest.raises(ConfigError) as told:
        load_settings()
    assert sentence in told.value.message and told.value.how_to_fix


def test_a_file_that_is_not_there_or_a_folder_is_told() -> None:
    for path, sentence in ((Path("none.toml"), "does not exist"), (Path(), "cannot be read")):
        with pytest.raises(ConfigError, match=sentence) as told:
            load_settings(path)
        assert told.value.how_to_fix


def test_agents_are_read_by_their_file_names(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no agents in"):
        load_agents(tmp_path)
    (tmp_path / "one.toml").write_text(AGENT)
    (tmp_path / "two.toml").write_text(AGENT)
    assert [(key, agent.id) for key, agent in load_agents(tmp_path).items()] == [
        ("one", "one"),
        ("two", "two"),
    ]
    (tmp_path / "two.toml").write_text(AGENT + "record = true\n")
    with pytest.raises(ConfigError, match="record_notice"):
        load_agents(tmp_path)


def test_an_agents_version_names_its_content(tmp_path: Path) -> None:
    path = tmp_path / "one.toml"
    path.write_text(AGENT)
    first = load_agent(path)
    path.write_text("# rewritten\n" + AGENT.replace("Hello.", "\\u0048ello."))
    again = load_agent(path)
    path.write_text(AGENT + "[turns]\nbarge_in_ms = 130\n")
    changed = load_agent(path)
    assert first.version == again.version != changed.version
    assert len(first.version) == 12 and int(first.version, 16) >= 0


def test_a_folder_that_is_not_ours_to_look_into_is_told(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    os.chdir(closed)
    closed.chmod(0)
    as_root = os.geteuid() == 0
    if as_root:  # nothing is closed to root
        os.seteuid(65534)
    try:
        with pytest.raises(ConfigError, match="cannot be looked into") as told:
            load_settings()
    finally:
        if as_root:
            os.seteuid(0)
        closed.chmod(0o700)
        os.chdir(tmp_path)
    assert "engine's user" in told.value.how_to_fix[0]


@pytest.mark.parametrize(
    "url",
    ["gpu1:8000/v1", "ftp://gpu1/v1", "http:///v1", "http://me:secret@gpu1/v1", "http://a/?k=1"],
)
def test_an_address_that_is_none_is_refused_without_telling_its_secret(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("OFFHOOK_REMOTE__LLM__BASE_URL", url)
    with pytest.raises(ConfigError, match=r"remote\.llm\.base_url: .*http://host:port/v1") as told:
        load_settings()
    assert "secret" not in told.value.message


def test_a_servers_key_comes_from_the_environment_and_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("offhook.toml").write_text('[remote.llm]\nbase_url = "https://gpu1/v1"\nmodel = "m"\n')
    monkeypatch.setenv("OFFHOOK_REMOTE__LLM__API_KEY", "sk-1")
    remote = load_settings().remote.llm
    assert remote.api_key.get_secret_value() == "sk-1" and "sk-1" not in repr(remote)
    assert (remote.base_url, remote.model) == ("https://gpu1/v1", "m")
