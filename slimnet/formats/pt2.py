"""model.pt2: a captured network as bytes, and a way to run one that was checked first."""

import io
from pathlib import Path

import torch
from torch.export.pt2_archive._package import load_pt2

from slimnet.errors import BundleError, ExportError
from slimnet.files import read_bytes
from slimnet.formats.pt2_check import check_program
from slimnet.formats.quiet import quiet
from slimnet.inputs import Inputs, tensors_in
from slimnet.models.architecture import reason


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
    """Runs a .pt2 file: `Inputs` to the list of output tensors.

    Raises:
        BundleError: the file holds code, or is not a captured network.
    """

    def __init__(self, path: Path) -> None:
        self.path, content = path, read_bytes(path)
        try:
            check_program(content)
            # Else its weights would be made on the default device, wherever that is, and filled here.
            with quiet(), torch.device("cpu"):
                # Not `torch.export.load`, which tries an older format with pickles where this one fails.
                self.module = load_pt2(io.BytesIO(content)).exported_programs["model"].module(check_guards=False)
        except BundleError as error:
            raise BundleError(f"{path} is not run: {error}") from error
        except Exception as error:  # torch's own errors have no type in common
            raise BundleError(f"{path} cannot be loaded ({reason(error)}); save the bundle again") from error

    def __call__(self, inputs: Inputs) -> list[torch.Tensor]:
        """Run the network without gradients.

        Raises:
            BundleError: it does not take these inputs.
        """
        try:
            with torch.no_grad(), torch.device("cpu"):
                return tensors_in(inputs.call(self.module))
        except Exception as error:  # a graph raises whatever its operators and its guards raise
            raise BundleError(f"{self.path} does not take the recorded inputs ({reason(error)})") from error
