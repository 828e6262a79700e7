"""How a trained model is sampled at the end of a run: settings, checked when the configuration is read."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from shared.claims.schema import one_line

from diffusion_fields.data.fields import FieldSet
from diffusion_fields.errors import FieldError

Method = Literal["ddpm", "ddim", "flow", "flow_heun"]
Steps = Annotated[int, Field(ge=1)]
Eta = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Look(_Strict):
    """One way to sample the trained model; None: as in training, or as `Settings` has it.

    All looks start from the same random numbers: those that share a grid, a method of choosing and a size of the
    context have the same context, and those that share the grid the same initial noise.

    Args:
        num_context: N_c; `all`: every query.
        context: `random`, `farthest_point`, or `regular` (of images: points on the trained grid's spacing).
        redrawn: another context at every step (an ablation).
        finer: so many times as many points on the circle or the sphere.
        resolution: side of an image or of a grid in space.
        method, steps, eta: of the sampler.
        guidance: weight w of classifier-free guidance.
        samples: how many.
        against: the look that this one is divided by in `w2_ratio`.
    """

    num_context: Annotated[int, Field(ge=1)] | Literal["all"] | None = None
    context: Literal["random", "farthest_point", "regular"] = "random"
    redrawn: bool = False
    finer: Annotated[int, Field(ge=1)] = 1
    resolution: Annotated[int, Field(ge=1)] | None = None
    method: Method | None = None
    steps: Steps | None = None
    eta: Eta | None = None
    guidance: float | None = None
    samples: Annotated[int, Field(ge=2)] | None = None
    against: str = "same"


class Settings(_Strict):
    """How a model is sampled at the end of training.

    Args:
        method, steps, eta, clip: of the sampler (clip null: no clamping).
        samples: of a look.
        looks: by name.
        observed: pairs that completions of random fields are given (0: no completions).
        completions: draws of each completion; `completed`: fields that are completed.
        resample: how often each step of a second set of completions is taken (RePaint).
    """

    method: Method = "ddim"
    steps: Steps | None = 50
    eta: Eta = 0.0
    clip: Annotated[float, Field(gt=0)] | None = 5.0
    samples: Annotated[int, Field(ge=2)] = 512
    looks: dict[str, Look] = Field(default_factory=lambda: {"same": Look()})
    observed: Annotated[int, Field(ge=0)] = 0
    completions: Annotated[int, Field(ge=2)] = 128
    completed: Annotated[int, Field(ge=1)] = 4
    resample: Annotated[int, Field(ge=1)] = 4

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name, look in self.looks.items():
            if look.against not in self.looks and look.against != "same":
                raise ValueError(f"looks.{name}.against is {look.against}: there is no such look")
        return self

    @classmethod
    def read(cls, values: dict[str, Any]) -> Self:
        """From a configuration's section.

        Raises:
            FieldError: an unknown key, or a value that it cannot have.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise FieldError(f"sampling.{one_line(error)}") from None

    def check(self, fields: FieldSet, num_context: int, prediction: str) -> None:
        """Whether these data and this network can be sampled so; before training, not after.

        Raises:
            FieldError: they cannot.
        """
        for name, look in {"": Look(), **self.looks}.items():
            where = f"sampling.looks.{name}" if name else "sampling"
            method, side = look.method or self.method, (fields.size or (0,))[0]
            if method.startswith("flow") and prediction != "flow":
                raise FieldError(f"{where}: method {method} does not sample a network that predicts {prediction}")
            grid = fields.shared_coords is not None and fields.size is None and fields.coord_dim in (2, 3)
            if look.finer > 1 and not (grid and fields.truth is not None):
                raise FieldError(f"{where}: finer is for fields on the circle or the sphere, not for {fields.name}")
            points = look.resolution**2 if look.resolution and side else fields.num_points * look.finer
            if isinstance(look.num_context, int) and look.num_context > points:
                raise FieldError(f"{where}: num_context is {look.num_context}, of {points} queries")
            size = num_context if look.num_context is None else look.num_context
            fits = bool(side and look.resolution and look.resolution % side == 0 and size == side * side)
            if look.context == "regular" and not fits:
                raise FieldError(
                    f"{where}: a regular context of {size} does not fit {look.resolution} x {look.resolution}"
                )
            if look.guidance is not None and fields.num_classes is None:
                raise FieldError(f"{where}: guidance needs classes, which {fields.name} has not")
        if self.observed > num_context:
            raise FieldError(f"sampling.observed is {self.observed}: the context of {num_context} has to hold them all")

    def dry(self) -> Self:
        """The same in little: two steps, few samples."""
        looks = {name: look.model_copy(update={"samples": None, "steps": 2}) for name, look in self.looks.items()}
        few = {"samples": 40, "looks": looks, "completions": 4, "completed": 1, "steps": 2, "resample": 2}
        return self.model_copy(update=few)
