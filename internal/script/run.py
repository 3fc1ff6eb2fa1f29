"""Runs a deployment script with the functions by which it talks to the server."""
import base64
import json
import os
import runpy
import shutil
import sys
import tempfile

# The log is UTF-8, whatever the machine's locale says.
for __stream in (sys.stdout, sys.stderr):
    __stream.reconfigure(encoding="utf-8", errors="backslashreplace")

__own = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(__own, "variables.json"), encoding="utf-8") as f:
    octopusvariables = json.load(f)
__folded = {name.lower(): value for name, value in octopusvariables.items()}


def __encode(value):
    return base64.b64encode(str(value).encode("utf-8", "replace")).decode("ascii")


def __message(verb, **attributes):
    text = "".join(" %s='%s'" % (k, __encode(v)) for k, v in attributes.items() if v is not None)
    print("##octopus[%s%s]" % (verb, text), flush=True)


def get_octopusvariable(name):
    return __folded.get(name.lower())


def set_octopusvariable(name, value, sensitive=False):
    __message("setVariable", name=name, value=value, sensitive="True" if sensitive else None)


def new_octopusartifact(path, name=None):
    """Keeps a file with the deployment. The agent hands out files of the script's own
    directory alone, so the file is linked there, or copied where it cannot be."""
    path = os.path.abspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError("The artifact %s does not exist or is no file." % path)
    artifacts = os.path.join(__own, "artifacts")
    os.makedirs(artifacts, exist_ok=True)
    kept = os.path.join(tempfile.mkdtemp(dir=artifacts), "file")
    try:
        os.link(os.path.realpath(path), kept)
    except OSError:
        shutil.copyfile(path, kept)
    __message("createArtifact", path=kept, name=name or os.path.basename(path), length=os.path.getsize(kept))


def update_progress(percentage, message=""):
    __message("progress", percentage=percentage, message=message)


def fail_step(message=None):
    if message:
        __message("resultMessage", message=message)
    sys.exit(1)


def __level(level, message):
    print("##octopus[stdout-%s]\n%s\n##octopus[stdout-default]" % (level, message), flush=True)


def write_verbose(message):
    __level("verbose", message)


def write_highlight(message):
    __level("highlight", message)


def write_wait(message):
    __level("wait", message)


def write_warning(message):
    __level("warning", message)


def write_error(message):
    __level("error", message)


def mask_octopusvalue(value):
    """Hides a value in the lines of the log that come after this one, of both streams."""
    __message("mask", value=value)
    print("##octopus[mask value='%s']" % __encode(value), file=sys.stderr, flush=True)


createartifact = new_octopusartifact
updateprogress = update_progress
failstep = fail_step
printverbose = write_verbose
printhighlight = write_highlight
printwait = write_wait
printwarning = write_warning

if __name__ == "__main__":
    script = sys.argv[1]
    sys.argv = sys.argv[1:]
    sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
    sys.path.insert(1, os.getcwd())  # where script modules are
    given = {k: v for k, v in globals().items() if callable(v) and not k.startswith("__")}
    given["octopusvariables"] = octopusvariables
    runpy.run_path(script, init_globals=given, run_name="__main__")
