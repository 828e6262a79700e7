"""The classifier as a file for other programs, by what PyTorch itself offers, or the reason why not.

torch.export and torch.jit.trace record the whole network, at one size of image and batch, with the operators of this
package as opaque ones: they are needed where the file is loaded. ONNX has no such operators; what its exporter says is
reported as it is.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Literal

import torch
from shared.errors import UserError
from shared.runs.store import write_atomic
from torch import nn

Form = Literal["torch-export", "torchscript", "onnx"]


def exported(model: nn.Module, form: Form, height: int, width: int, batch: int = 1) -> bytes:
    """The network, as it is in evaluation, as bytes of a file of that form, for images of one size.

    Raises:
        UserError: PyTorch cannot bring it into that form; the line says what it said.
    """
    images = torch.zeros(batch, 3, height, width)
    buffer, training = io.BytesIO(), model.training
    model.eval()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            if form == "torch-export":
                torch.export.save(torch.export.export(model, (images,), strict=False), buffer)
            elif form == "torchscript":
                torch.jit.save(torch.jit.trace(model, (images,), check_trace=False), buffer)
            else:
                program = torch.onnx.export(model, (images,), dynamo=True, verbose=False)
                assert program is not None
                buffer.write(program.model_proto.SerializeToString())
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(f"cannot be exported as {form}: {type(error).__name__}: {said}") from None
    finally:
        model.train(training)
    return buffer.getvalue()


def export(model: nn.Module, form: Form, path: Path, height: int, width: int, batch: int = 1) -> None:
    """Write the network to `path`; see `exported`."""
    write_atomic(path, exported(model, form, height, width, batch))
