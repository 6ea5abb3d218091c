"""What is installed and loaded. Runs in a sandbox."""

import importlib.metadata
import sys

installed = sorted({d.metadata["Name"] for d in importlib.metadata.distributions() if d.metadata["Name"]}, key=str.lower)
{
    "python_version": sys.version,
    "installed_packages": installed,
    "loaded_modules": sorted(name for name in sys.modules if not name.startswith(("sandbox_runner", "_"))),
    "total_packages": len(installed),
}
