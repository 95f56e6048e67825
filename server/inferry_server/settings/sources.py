"""Where settings come from: flags, then the environment, then one TOML file, then the defaults."""

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from inferry_server.errors import StartError
from inferry_server.settings.settings import ALIASES, ENVIRONMENT_PREFIX, Settings
from inferry_server.settings.values import PARSERS, READERS, to_toml

CONFIG_VARIABLE = f"{ENVIRONMENT_PREFIX}CONFIG"

# Variables with our prefix that are not for the server: the trainer's data, where the clients' server is, what a load
# test tells its processes, what benchmarks and tests use; not the clients' TLS and token, which could be meant to
# secure this server,
_OTHERS = re.compile(r"DATA|PEERS|RAY_PYTHON|BENCH_\w+|SERVER(_NAME)?|LOAD_\w+")
# and what Kubernetes tells every pod of each Service whose name begins with `inferry`.
_KUBERNETES = re.compile(r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_KUBERNETES_PORT = re.compile(r"(\w+_)?PORT")
_KUBERNETES_PORT_VALUE = re.compile(r"(tcp|udp|sctp)://")


@dataclass(frozen=True)
class SettingsSources:
    """What was said about settings, and where.

    Attributes:
        values: by name, checked one by one; settings that nobody mentioned are absent.
        origins: for each of the values, where it comes from, as users know it.
    """

    values: Mapping[str, Any]
    origins: Mapping[str, str]

    def settings(self) -> Settings:
        """The settings, checked as a whole.

        Raises:
            StartError: no repository, or values that contradict each other; names the setting.
        """
        if "repository" not in self.values:
            raise StartError(
                f"no model repository; name its folder with --repository DIR or {ENVIRONMENT_PREFIX}REPOSITORY"
            )
        return Settings(**self.values)

    def describe(self) -> str:
        """Every setting with its value and its origin, as a TOML file that says the same.

        Raises:
            StartError: values that contradict each other.
        """
        repository = self.values.get("repository", Path()).absolute()  # right wherever the output is put
        settings = Settings(**{**self.values, "repository": repository})
        lines = {name: f"{name} = {to_toml(getattr(settings, name))}" for name in (f.name for f in fields(Settings))}
        origins = dict.fromkeys(lines, "default") | dict(self.origins)
        if "repository" not in self.values:
            lines["repository"], origins["repository"] = "# repository", "not set"
        width = max(map(len, lines.values()))
        return "\n".join(f"{line:<{width}}  # {origins[name]}" for name, line in lines.items())


def read_settings(flags: Mapping[str, str], environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings, from `read_sources` of the same arguments.

    Raises:
        StartError: names the setting, what came and what was expected.
    """
    return read_sources(flags, environment).settings()


def read_sources(flags: Mapping[str, str], environment: Mapping[str, str] = os.environ) -> SettingsSources:
    """Ask flags, environment and file for every setting; the first that knows it decides.

    Args:
        flags: by field name, as the command line spelled them; `config` names the file.
        environment: the process environment; INFERRY_CONFIG names the file where no flag does.

    Raises:
        StartError: an unknown setting, with the nearest known one, or a value that cannot be read.
    """
    _refuse_unknown_variables(environment)
    path = flags.get("config", environment.get(CONFIG_VARIABLE))
    table = {} if path is None else _read_file(Path(path))
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for setting in fields(Settings):
        name, alias = setting.name, ALIASES.get(setting.name, setting.name)
        variable, old_variable = ENVIRONMENT_PREFIX + name.upper(), ENVIRONMENT_PREFIX + alias.upper()
        variable = variable if variable in environment else old_variable
        key = name if name in table else alias
        if name in flags:
            value, origin, parse = flags[name], f"flag --{name.replace('_', '-')}", PARSERS[setting.type]
        elif variable in environment:
            value, origin, parse = environment[variable], f"environment variable {variable}", PARSERS[setting.type]
        elif key in table:
            value, origin, parse = table[key], f"file {path}", READERS[setting.type]
        else:
            continue
        try:
            values[name] = parse(value)
        except ValueError as error:
            raise StartError(f"setting {name} ({origin}): {error}") from None
        origins[name] = origin
    if path is not None and origins.get("repository") == f"file {path}":
        values["repository"] = Path(path).parent / values["repository"]  # the file and the models may move together
    return SettingsSources(values, origins)


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    names = (*(setting.name for setting in fields(Settings)), *ALIASES.values())
    known = {CONFIG_VARIABLE, *(ENVIRONMENT_PREFIX + name.upper() for name in names)}
    for variable in _unknown_variables(environment, known):
        bare = [name.removeprefix(ENVIRONMENT_PREFIX) for name in known]
        nearest = ENVIRONMENT_PREFIX + _nearest(variable.removeprefix(ENVIRONMENT_PREFIX), bare)
        raise StartError(f"environment variable {variable} is no setting; the nearest is {nearest}")


def _unknown_variables(environment: Mapping[str, str], known: Iterable[str]) -> Iterator[str]:
    for variable in sorted(set(environment).difference(known)):
        name = variable.removeprefix(ENVIRONMENT_PREFIX)
        if name == variable or _OTHERS.fullmatch(name) or _KUBERNETES.fullmatch(name):
            continue
        if _KUBERNETES_PORT.fullmatch(name) and _KUBERNETES_PORT_VALUE.match(environment[variable]):
            continue
        yield variable


def _read_file(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StartError(f"configuration file {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise StartError(f"configuration file {path} is not TOML: {error}") from None
    known = {*(setting.name for setting in fields(Settings)), *ALIASES.values()}
    for key in table:
        if key not in known:
            raise StartError(
                f"configuration file {path}: {key!r} is no setting; the nearest is {_nearest(key, known)!r}"
            )
    return table


def _nearest(name: str, known: Iterable[str]) -> str:
    return difflib.get_close_matches(name, sorted(known), n=1, cutoff=0)[0]
