"""`micropip`, as user code sees it: the host finds, checks and unpacks packages, the sandbox mounts them read-only."""

import importlib.metadata

from . import device

__version__ = "0.11.1+sandbox"


async def install(
    requirements,
    keep_going=False,
    deps=True,
    credentials=None,
    pre=False,
    index_urls=None,
    *,
    constraints=None,
    reinstall=False,
    verbose=None,
):
    """Install packages for this caller: they are there now, and in later executions.

    `requirements` is one requirement or a list of them, as PEP 508 writes them. Raises ValueError saying which package
    is not available, and why. The server decides where packages come from; the other parameters have no effect.
    """
    # Not `list`, which is the function below.
    install_now([requirements] if isinstance(requirements, str) else [*requirements])


def install_now(requirements):
    """As :func:`install`, at once."""
    for requirement in requirements:
        if not isinstance(requirement, str):
            raise TypeError(f"a requirement is text, not {type(requirement).__name__}: {requirement!r}")
    try:
        device.ask("install-packages", requirements)
    except OSError as error:
        raise ValueError(str(error)) from None
    importlib.invalidate_caches()


def list():
    """Name and version of every installed package, by name."""
    return {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}


def freeze():
    raise NotImplementedError("micropip.freeze is not supported in the sandbox")


def uninstall(packages, *, verbose=None):
    raise NotImplementedError("micropip.uninstall is not supported in the sandbox; POST /api/reset removes packages")


def set_index_urls(urls):
    raise NotImplementedError("the server decides where packages come from")


def set_constraints(constraints):
    raise NotImplementedError("micropip.set_constraints is not supported in the sandbox")
