"""What the documentation says that the program does not have.

  docs_test.py TRIREME EXAMPLE DEV AUTOENCODER PAGE...

Commands in blocks stand in ```sh blocks, which are run page by page, with
`examples` the folder of EXAMPLE, under the conditions of docs_conditions.py;
what wants other machines is told --dry_run. Commands of the program that are
not run, in blocks and within lines, are parsed by it; templates and parts of
commands have options that its --help names. Commands of ./dev are in its help.
Every message in the first column of troubleshooting.md is, between what differs
(…), a text of the program's.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time

import docs_conditions

TRIREME, EXAMPLE, DEV, AUTOENCODER = map(os.path.abspath, sys.argv[1:5])
PAGES = sys.argv[5:]
# Of commands, to be run as it stands.
SHELL = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`]+)`")
# With or without its name, of the latter those that have options.
COMMAND = re.compile(r"^(?:mpirun [^\n]*?)?trireme ([a-z]+)\b([^#|;&\n]*)"
                     r"|^([a-z]+)((?: [^ -]\S*)* --[a-z][^#|;&\n]*)",
                     re.MULTILINE)
DEV_COMMAND = re.compile(r"^\./dev ([a-z]+)", re.MULTILINE)
OPTION = re.compile(r"(?:^|\s)--([a-z][a-z0-9_]*)")
# The beginning of a line that someone may run.
RUNNABLE = re.compile(
    r"^ *(?:[A-Z_]+=\S* +)?(?:trireme|mpirun|python3|bazel|kubectl|srun|sbatch"
    r"|tar(?= +-)|\./dev|(?:tools|tests|examples|trireme)/\S+) +[-\w.]",
    re.MULTILINE)


def output(*command):
    """Its status, and what it printed."""
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    return done.returncode, done.stdout.decode()


def joined(block):
    """A line that ends in a backslash goes on."""
    return block.replace("\\\n", " ")


def code_of(text):
    """Blocks, and code within lines."""
    inline = INLINE.findall(BLOCK.sub("", text))
    return ([joined(block) for block in BLOCK.findall(text)]
            + [part.replace("\n", " ") for part in inline])


class Program:
    """What the program knows of its commands."""

    def __init__(self):
        self.names = re.findall(r"^  ([a-z]+)  ", output(TRIREME, "help")[1],
                                re.MULTILINE)
        self.options, self.parsed = {}, {}

    def unknown_options(self, command, rest):
        if command not in self.options:
            self.options[command] = set(
                OPTION.findall(output(TRIREME, command, "--help")[1]))
        return [f"--{option}: no such option"
                for option in OPTION.findall(rest)
                if option not in self.options[command] | {"help"}]

    def parse(self, command, rest):
        """What its parser finds wrong before an option that is none."""
        key = (command, rest.strip())
        if key not in self.parsed:
            _, said = output(TRIREME, command, *shlex.split(rest),
                             "--no_such_option")
            self.parsed[key] = (
                [] if "found --no_such_option, which is no option" in said
                else [said.strip()])
        return self.parsed[key]

    def mistakes(self, text, run):
        """Of a page's commands, without those that are run; and how many."""
        wrong, count = [], 0
        for part in code_of(text):
            for match in COMMAND.finditer(part):
                whole = match.group(1) is not None
                command, rest = match.groups()[:2] if whole else (
                    match.groups()[2:])
                if not whole and command not in self.names:
                    continue
                count += 1
                if command not in self.names:
                    wrong.append(f"trireme {command}: no such command")
                    continue
                if match.group(0).strip() in run:
                    continue
                # Of some the last option stands for all its values.
                template = not whole or re.search(
                    r"\.\.|…|\[|--help|\s--[a-z_0-9]+\s*$", rest)
                if template or not OPTION.search(rest):
                    found = self.unknown_options(command, rest)
                else:
                    found = self.parse(command, rest)
                wrong += [f"{match.group(0).strip()}: {what}" for what in found]
        return wrong, count


def script_of(name, text):
    """What of a page is run, and which of its conditions match nothing."""
    lines = [line for block in SHELL.findall(text)
             for line in joined(block).split("\n")]
    wrong = []
    for beginning in docs_conditions.ELSEWHERE.get(name, {}):
        rest = [line for line in lines if not line.startswith(beginning)]
        if len(rest) == len(lines):
            wrong.append(f"{name}: docs_conditions.py has '{beginning}', with "
                         "which no command begins")
        lines = rest
    run = {line.split("#")[0].strip() for line in lines}
    script = "\n".join(
        f"{line.replace('--check', '').split('#')[0]} --dry_run"
        if re.search(r"^trireme .*--(hosts|slurm)\b", line) else line
        for line in lines)
    for found, instead, _ in docs_conditions.INSTEAD.get(name, []):
        if found not in script:
            wrong.append(f"{name}: docs_conditions.py has '{found}', which is "
                         "in no command that is run")
        script = script.replace(found, instead)
    return script if script.strip() else None, run, wrong


def run_pages(scripts):
    """What goes wrong in the pages' scripts."""
    order = docs_conditions.GUIDES + sorted(
        set(scripts) - set(docs_conditions.GUIDES))
    here = os.path.dirname(os.path.abspath(__file__))
    with tempfile.TemporaryDirectory(prefix="trireme.") as work:
        os.makedirs(f"{work}/bin")
        os.symlink(TRIREME, f"{work}/bin/trireme")
        environment = dict(
            os.environ, PATH=f"{work}/bin:{os.environ['PATH']}", TMPDIR=work,
            PYTHONPATH=here, PYTHONDONTWRITEBYTECODE="1",
            AUTOENCODER=AUTOENCODER)
        for name in order:
            if name not in scripts:
                return [f"{name}: no sh block that can be run"]
            folder = (f"{work}/guides" if name in docs_conditions.GUIDES
                      else f"{work}/{name}")
            if not os.path.exists(folder):
                os.makedirs(folder)
                os.symlink(os.path.dirname(EXAMPLE), f"{folder}/examples")
            before = docs_conditions.BEFORE.get(name, "")
            begin = time.monotonic()
            # Each page is a reader's own beginning.
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c",
                 f"rm -rf runs\n{before}\n{scripts[name]}"],
                cwd=folder, env=environment, check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            print(f"{name}: {time.monotonic() - begin:.1f} s")
            if done.returncode != 0:
                return [f"{name}: status {done.returncode}:\n"
                        + done.stdout.decode()[-4000:]]
    return []


def messages(text):
    """In the first columns of tables."""
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


def main():
    wrong, count, scripts = [], 0, {}
    program = Program()
    dev = re.findall(r"^  ([a-z]+) ", output(DEV, "help")[1], re.MULTILINE)
    with open(TRIREME, "rb") as file:
        binary = file.read()
    pages = {os.path.basename(page): page for page in PAGES}
    for name in {**docs_conditions.BEFORE, **docs_conditions.INSTEAD,
                 **docs_conditions.ELSEWHERE}:
        if name not in pages:
            wrong.append(f"{name}: in docs_conditions.py, and no page")
    for name, page in pages.items():
        with open(page, encoding="utf-8") as file:
            text = file.read()
        if name == "troubleshooting.md":
            wrong += [f"{page}: '{message}': '{part}' is no text of the program"
                      for message in messages(text)
                      for part in message.split("…")
                      if part.encode() not in binary]
        rest = SHELL.sub("", text)
        wrong += [f"{page}: '{rest[match.start():].splitlines()[0].strip()}' "
                  "in no sh block" for match in RUNNABLE.finditer(rest)]
        wrong += [f"{page}: ./dev {command}: not in its help"
                  for part in code_of(text)
                  for command in DEV_COMMAND.findall(part)
                  if command not in dev]
        script, run, unmatched = script_of(name, text)
        wrong += unmatched
        if script is not None:
            scripts[name] = script
        mistakes, commands = program.mistakes(text, run)
        wrong += [f"{page}: {mistake}" for mistake in mistakes]
        count += commands
    wrong += run_pages(scripts)
    print("\n".join(sorted(set(wrong))))
    print(f"{count} commands on {len(PAGES)} pages")
    return 1 if wrong or count < 40 else 0


if __name__ == "__main__":
    sys.exit(main())
