#!/usr/bin/env python3
"""The reference of the fields of jobs, plans and clusters, from their protos.

  reference.py            writes docs/reference/*.md
  reference.py --check    says which of them is out of date, with status 1

Comments of the protos are the text; they stand in front of what they are of, or
behind a value on its line.
"""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Each page: its title, what it says first, and patterns of the files whose
# messages it has.
PAGES = {
    "job": ("The fields of a job",
            "What a job file may say ([jobs.md](../jobs.md)), beginning "
            "with `Job`.", ["trainer/job/job.proto", "models/model.proto",
                            "models/*/*.proto"]),
    "plan": ("The fields of a plan",
             "What a plan file may say ([parallelism.md](../parallelism.md)), "
             "beginning with `Plan`.", ["scheduler/plan/plan.proto"]),
    "cluster": ("The fields of a cluster",
                "What a cluster file may say ([planning.md](../planning.md)), "
                "beginning with `Cluster`.",
                ["scheduler/cluster/cluster.proto"]),
}
SCALARS = {"double": "number", "float": "number", "bool": "true or false",
           "string": "text"}
FIELD = re.compile(r"^(optional |repeated )?(map<\w+, *[\w.]+>|[\w.]+) (\w+) = "
                   r"\d+(?: \[.*\])?;$")
VALUE = re.compile(r"^(\w+) = \d+;$")


@dataclass
class Field:
    name: str
    type: str
    repeated: bool
    comment: str
    alternative_of: str = ""


@dataclass
class Message:
    name: str  # with those that it lies in: "Plan.Grid"
    comment: str
    fields: list = field(default_factory=list)


@dataclass
class Enum:
    name: str
    comment: str
    values: list = field(default_factory=list)  # pairs of name and comment


def parse(path):
    """The messages and enums of a file, in order."""
    found, scope, comment, statement = [], [], [], ""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        code, _, behind = line.partition("//")
        code = code.strip()
        if not code:
            # A blank line parts a comment from what follows.
            if behind or "//" in line:
                comment.append(behind.strip())
            else:
                comment = []
            continue
        statement = (statement + " " + code).strip()
        if not statement.endswith((";", "{", "}", "{}")):
            continue
        text = " ".join(comment + ([behind.strip()] if behind else []))
        begin = re.match(r"^(message|enum|oneof) (\w+) \{(\})?$", statement)
        names = [entry.name.rsplit(".", 1)[-1] for entry in scope
                 if not isinstance(entry, str)]
        if begin:
            kind, name, closed = begin.groups()
            if kind == "oneof":
                scope.append(name)
            else:
                made = (Message if kind == "message" else Enum)(
                    ".".join(names + [name]), text)
                found.append(made)
                if not closed:
                    scope.append(made)
        elif statement == "}":
            scope.pop()
        elif re.match(r"^(syntax|package|import|reserved|option)\b", statement):
            pass
        else:
            add(statement, text, scope, f"{path}:{number}")
        comment, statement = [], ""
    return found


def add(statement, text, scope, place):
    if isinstance(scope[-1], Enum):
        match = VALUE.match(statement)
        assert match, f"{place}: not understood: {statement}"
        scope[-1].values.append((match.group(1), text))
        return
    match = FIELD.match(statement)
    assert match, f"{place}: not understood: {statement}"
    label, kind, name = match.groups()
    inside = scope[-1] if isinstance(scope[-1], str) else ""
    message = scope[-2] if inside else scope[-1]
    message.fields.append(Field(name, kind, label == "repeated ", text, inside))


def anchor(name):
    return name.lower().replace(".", "")


def type_text(kind, message, known):
    """A type as people see it; known types are links."""
    if kind.startswith(("uint", "int")):
        return "whole number"
    if kind in SCALARS:
        return SCALARS[kind]
    # The innermost scope that has it.
    parts = message.split(".")
    for depth in range(len(parts), -1, -1):
        name = ".".join(parts[:depth] + [kind])
        if name in known:
            return f"[{kind}](#{anchor(name)})"
    return kind


def cell(text):
    return text.replace("|", "\\|")


def page(title, intro, entries):
    known = {entry.name for entry in entries}
    lines = [f"# {title}", "", intro, "",
             "Written by `tools/dev/reference.py` from the comments of the "
             "protos; a test says when it is out of date.", ""]
    for entry in entries:
        lines += [f"## {entry.name}", ""]
        if entry.comment:
            lines += [entry.comment, ""]
        if isinstance(entry, Enum):
            lines += ["| value | |", "|---|---|"]
            lines += [f"| `{name}` | {cell(text)} |"
                      for name, text in entry.values
                      if not name.endswith("_UNSPECIFIED")]
            default = [text for name, text in entry.values
                       if name.endswith("_UNSPECIFIED") and text]
            lines += [""] + [text for text in default] + [""] * len(default)
        elif entry.fields:
            lines += ["| field | | |", "|---|---|---|"]
            for item in entry.fields:
                kind = type_text(item.type, entry.name, known)
                if item.repeated:
                    kind = f"list of {kind}"
                text = item.comment
                if item.alternative_of:
                    others = [f"`{other.name}`" for other in entry.fields
                              if other.alternative_of == item.alternative_of
                              and other is not item]
                    text = (text + " In the place of " + ", ".join(others) +
                            ".").strip()
                lines.append(f"| `{item.name}` | {kind} | {cell(text)} |")
            lines.append("")
        else:
            lines += ["No fields.", ""]
    return "\n".join(lines).rstrip() + "\n"


def main():
    out_of_date = []
    for name, (title, intro, files) in PAGES.items():
        entries = [entry for pattern in files
                   for file in sorted(ROOT.glob(pattern))
                   for entry in parse(file)]
        path = ROOT / "docs" / "reference" / f"{name}.md"
        text = page(title, intro, entries)
        if path.exists() and path.read_text() == text:
            continue
        if "--check" in sys.argv[1:]:
            out_of_date.append(str(path.relative_to(ROOT)))
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    for path in out_of_date:
        print(f"{path} is out of date; tools/dev/reference.py writes it")
    return 1 if out_of_date else 0


if __name__ == "__main__":
    sys.exit(main())
