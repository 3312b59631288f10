"""model.pt2: a captured network as bytes, and two runners: slimnet's, which generates no code, and torch's."""

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
    except Exception as error:  # torch's errors have no common base
        raise ExportError(f"the network cannot be written as an exported program: {reason(error)}") from error
    return buffer.getvalue()


class ProgramRunner:
    """Runs an untrusted .pt2 file: maps `Inputs` to the list of output tensors.

    torch itself generates Python source from such a file and evaluates parts of it. Here its steps are read as data and
    run one by one, and only operators on tensors and numbers are called.

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
        except Exception as error:  # a field may be missing or have any type
            raise BundleError(f"{path} is not run: it is not a captured network ({reason(error):.100})") from error

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
        except Exception as error:  # operators may raise anything
            raise BundleError(f"{self.path} does not take the recorded inputs ({reason(error):.200})") from error


class TorchRunner:
    """Runs a .pt2 file by `torch.export.load`, which trusts it: only for files that this process has written.

    Raises:
        ExportError: torch cannot read it.
    """

    def __init__(self, path: Path) -> None:
        try:
            # torch's loader has process-wide state; `quiet` admits one thread at a time. Without an explicit device
            # the weights would be created on the default device.
            with quiet(), torch.device("cpu"):
                self.module = torch.export.load(path).module(check_guards=False)
        except Exception as error:  # torch's errors have no common base
            raise ExportError(f"torch cannot load {path.name} again ({reason(error)})") from error

    def __call__(self, inputs: Inputs) -> list[torch.Tensor]:
        """Run the network without gradients.

        Raises:
            ExportError: it does not take these inputs.
        """
        try:
            with torch.no_grad(), torch.device("cpu"):
                return tensors_in(inputs.call(self.module))
        except Exception as error:  # operators may raise anything
            raise ExportError(f"torch cannot run the program it was exported to ({reason(error)})") from error
