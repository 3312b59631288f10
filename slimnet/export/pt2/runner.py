"""model.pt2: a captured network as bytes, and two ways to run one: without making code of it, and as torch does."""

import io
from pathlib import Path

import torch

from slimnet.errors import BundleError, ExportError, reason
from slimnet.export.pt2.archive import read_archive
from slimnet.export.pt2.program import read_program
from slimnet.export.quiet_torch import quiet
from slimnet.modules.example_inputs import Inputs, tensors_in
from slimnet.storage.files import read_bytes


def program_bytes(program: torch.export.ExportedProgram) -> bytes:
    """A captured network as `torch.export.save` writes it, without example data and paths of this machine.

    Raises:
        ExportError: it cannot be written.
    """
    buffer = io.BytesIO()
    try:
        with quiet():
            torch.export.save(program, buffer)
    except Exception as error:  # as below
        raise ExportError(f"the network cannot be written as an exported program: {reason(error)}") from error
    return buffer.getvalue()


class ProgramRunner:
    """Runs a .pt2 file that may come from anywhere: `Inputs` to the list of output tensors.

    torch itself makes Python source of such a file and evaluates parts of it. Here its steps are read as data and run
    one by one, and only operators on tensors and numbers are called.

    Raises:
        BundleError: the file does more than compute, or is not a captured network.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with torch.device("cpu"):
                self.program = read_program(read_archive(read_bytes(path)))
        except BundleError as error:
            raise BundleError(f"{path} is not run: {error}") from error
        except OSError as error:
            raise BundleError(f"{path} cannot be read ({error.strerror or error})") from error
        except Exception as error:  # a field may be missing, or be of any other type than it should
            raise BundleError(f"{path} is not run: it is no captured network ({reason(error):.100})") from error

    def __call__(self, inputs: Inputs) -> list[torch.Tensor]:
        """Run the network without gradients.

        Raises:
            BundleError: it does not take these inputs.
        """
        try:
            with torch.no_grad(), torch.device("cpu"):
                return self.program(inputs)
        except BundleError as error:
            raise BundleError(f"{self.path} does not take the recorded inputs: {error}") from error
        except Exception as error:  # operators raise errors of any type
            raise BundleError(f"{self.path} does not take the recorded inputs ({reason(error):.200})") from error


class TorchRunner:
    """Runs a .pt2 file as `torch.export.load` does, which trusts it: only for one that this process has written.

    Raises:
        ExportError: torch does not read it.
    """

    def __init__(self, path: Path) -> None:
        try:
            # What torch knows of a program that it reads is one for the process; `quiet` lets one thread in at a time.
            # Without a device its weights would be made on the default one, wherever that is.
            with quiet(), torch.device("cpu"):
                self.module = torch.export.load(path).module(check_guards=False)
        except Exception as error:  # torch's own errors have no type in common
            raise ExportError(f"torch cannot load {path.name} again ({reason(error)})") from error

    def __call__(self, inputs: Inputs) -> list[torch.Tensor]:
        """Run the network without gradients.

        Raises:
            ExportError: it does not take these inputs.
        """
        try:
            with torch.no_grad(), torch.device("cpu"):
                return tensors_in(inputs.call(self.module))
        except Exception as error:  # a graph raises whatever its operators raise
            raise ExportError(f"torch cannot run the program it was exported to ({reason(error)})") from error
