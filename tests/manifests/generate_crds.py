"""Makes `crds.json`: JSON schemas of the custom resources that the manifests use.

    npm pack @kubernetes-models/{cert-manager@6.0.0,gateway-api@2.0.0,keda@2.0.0,prometheus-operator@6.0.0}
    pip download --no-deps kserve==0.21.0
    python tests/manifests/generate_crds.py FOLDER    # where all of them are unpacked

The npm packages (MIT) declare every field of the projects' own definitions as TypeScript, KServe's SDK (Apache-2.0)
as Python dictionaries. Both say which fields there are and of which type; the former also which are required. Patterns
and ranges are in neither. What is not declared there, and so not checked here, is taken as it is.
"""

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OUTPUT = Path(__file__).with_name("crds.json")
KINDS = {
    "cert-manager.io/v1": ("Certificate", "Issuer"),
    "gateway.networking.k8s.io/v1": ("BackendTLSPolicy", "Gateway", "GRPCRoute"),
    "keda.sh/v1alpha1": ("ScaledObject",),
    "monitoring.coreos.com/v1": ("PodMonitor", "PrometheusRule"),
}
KSERVE = {
    "serving.kserve.io/v1alpha1/ClusterServingRuntime": "V1alpha1ClusterServingRuntime",
    "serving.kserve.io/v1beta1/InferenceService": "V1beta1InferenceService",
}
PRIMITIVES = {"string": {"type": "string"}, "number": {"type": "number"}, "boolean": {"type": "boolean"}}
PYTHON_PRIMITIVES = {
    "str": {"type": "string"}, "int": {"type": "integer"}, "bool": {"type": "boolean"}, "float": {"type": "number"},
}  # fmt: skip
TYPE_META = {"properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}}
TOKEN = re.compile(r'"[^"]*"|[A-Za-z_][\w.]*|[{}\[\]<>|;:?()&]')
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)

Schema = dict[str, Any]


class Declarations:
    """The interfaces and types of a folder of `.d.ts` files, by their exported name."""

    def __init__(self, folder: Path) -> None:
        self._texts: dict[str, str] = {}
        for path in sorted(folder.glob("*.d.ts")):
            text = COMMENT.sub("", path.read_text())
            self._texts |= dict.fromkeys(re.findall(r"\bI\w+ as (\w+)", text), text)
            self._texts |= {f"I{path.name.removesuffix('.d.ts')}": text}
            self._texts |= dict.fromkeys(re.findall(r"export type \{ \w+ as (\w+) \}", text), text)
        self.definitions: dict[str, Schema] = {}

    def schema(self, name: str) -> Schema:
        """A reference to what `name` declares, or anything where it is declared elsewhere."""
        if name not in self._texts:
            return {}
        if name not in self.definitions:
            self.definitions[name] = {}
            self.definitions[name] = self._read(self._texts[name])
        return {"$ref": f"#/definitions/{name}"}

    def _read(self, text: str) -> Schema:
        interface = re.search(r"export (?:declare )?interface \w+(?: extends ([\w, ]+))? \{", text)
        if interface is None:
            alias = re.search(r"export (?:declare )?type \w+ = ([^;]+);", text)
            return {} if alias is None else Parser(alias[1], self).type()
        parser = Parser(text[interface.end() - 1 :], self)
        own = parser.type()
        for parent in (interface[1] or "").replace(" ", "").split(","):
            if parent in self._texts:
                own = merged(own, self.definitions[self.schema(parent)["$ref"].rpartition("/")[2]])
            elif parent:
                own = merged(own, TYPE_META)
        return own


def merged(one: Schema, other: Schema) -> Schema:
    return {
        **one,
        "properties": other.get("properties", {}) | one.get("properties", {}),
        "required": sorted({*one.get("required", ()), *other.get("required", ())}),
    }


class Parser:
    """Reads one type as the declarations write it."""

    def __init__(self, text: str, declarations: Declarations) -> None:
        self._tokens = self._tokenize(text)
        self._declarations = declarations
        self._next = next(self._tokens, "")

    @staticmethod
    def _tokenize(text: str) -> Iterator[str]:
        return (match[0] for match in TOKEN.finditer(text))

    def _take(self, expected: str | None = None) -> str:
        token, self._next = self._next, next(self._tokens, "")
        if expected is not None and token != expected:
            raise ValueError(f"expected {expected!r}, not {token!r}")
        return token

    def type(self) -> Schema:
        """Alternatives of one or more types."""
        found = [self._one()]
        while self._next == "|":
            self._take()
            found.append(self._one())
        found = [one for one in found if one != {"type": "null"}]
        if all("const" in one for one in found):
            return {"enum": [one["const"] for one in found]}
        return found[0] if len(found) == 1 else {"anyOf": found}

    def _one(self) -> Schema:
        word = self._take()
        if word.startswith('"'):
            return {"const": word.strip('"')}
        if word == "{":
            return self._object()
        if word == "Array":
            self._take("<")
            items = self.type()
            self._take(">")
            return {"type": "array", "items": items}
        if word in ("null", "undefined"):
            return {"type": "null"}
        return PRIMITIVES.get(word) or self._declarations.schema(word)

    def _object(self) -> Schema:
        if self._next == "[":
            while self._take() != "]":
                pass
            self._take(":")
            values = self.type()
            self._take(";")
            self._take("}")
            return {"type": "object", "additionalProperties": values}
        properties, required = {}, []
        while self._next != "}":
            name = self._take().strip('"')
            if self._next == "?":
                self._take()
            else:
                required.append(name)
            self._take(":")
            properties[name] = self.type()
            self._take(";")
        self._take("}")
        closed = {"type": "object", "properties": properties, "additionalProperties": False}
        return closed | ({"required": sorted(required)} if required else {}) if properties else {"type": "object"}


class Models:
    """The classes of KServe's SDK, by name."""

    def __init__(self, folder: Path) -> None:
        self._classes: dict[str, ast.ClassDef] = {}
        for path in folder.glob("*.py"):
            self._classes |= {
                node.name: node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)
            }
        self.definitions: dict[str, Schema] = {}

    def schema(self, kind: str) -> Schema:
        """A reference to the class, or the type that a primitive's name means."""
        if kind.startswith("list["):
            return {"type": "array", "items": self.schema(kind[5:-1])}
        if kind.startswith("dict("):
            return {"type": "object", "additionalProperties": self.schema(kind[5:-1].partition(", ")[2])}
        if kind not in self._classes:
            return dict(PYTHON_PRIMITIVES.get(kind, {}))
        if kind not in self.definitions:
            self.definitions[kind] = {}
            tables = {
                target.id: ast.literal_eval(node.value)
                for node in self._classes[kind].body
                if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
                for target in node.targets
                if isinstance(target, ast.Name)
            }
            names, types = tables["attribute_map"], tables["openapi_types"]
            properties = {names[attribute]: self.schema(types[attribute]) for attribute in sorted(types)}
            self.definitions[kind] = {"type": "object", "properties": properties, "additionalProperties": False}
        return {"$ref": f"#/definitions/{kind}"}


def main(folder: Path) -> None:
    schemas: dict[str, Schema] = {}
    for api_version, kinds in KINDS.items():
        (declared,) = [path for path in folder.rglob(api_version) if path.is_dir()]
        for kind in kinds:
            declarations = Declarations(declared)
            root = declarations.schema(f"I{kind}")
            schemas[f"{api_version}/{kind}"] = {**root, "definitions": declarations.definitions}
    (models,) = [path for path in folder.rglob("kserve/models") if path.is_dir()]
    for name, kind in KSERVE.items():
        classes = Models(models)
        schemas[name] = {**classes.schema(kind), "definitions": classes.definitions}
    lines = (f"{json.dumps(name)}:{json.dumps(schemas[name], sort_keys=True)}" for name in sorted(schemas))
    OUTPUT.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
