"""Where a model can be looked at and changed: sites, their dims and hooks, checked for one model.

Rule: what is not there is an error before anything runs; what a hook of this architecture cannot do is found by trying.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.activations.hooks import legacy_names
from pattern_lens.errors import SpecificationError
from pattern_lens.names import (
    ACTIVATIONS,
    ALIASES,
    D_HEAD,
    D_MODEL,
    FEATURE,
    HEAD,
    KEY,
    KV_HEAD,
    NEURON,
    POS,
    QUERY,
)
from pattern_lens.tracing.traces import STREAMS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pattern_lens.models import CaptureModel
    from pattern_lens.tracing.ablations import Ablation
    from pattern_lens.tracing.objectives import Objective
    from pattern_lens.tracing.splice import Spliced
    from pattern_lens.tracing.traces import Trace

ABLATED: Final = (
    "pattern",
    "attn_scores",
    "q",
    "k",
    "v",
    "z",
    "post",
    "attn_out",
    "mlp_out",
    "resid_pre",
    "resid_mid",
    "resid_post",
    "embed",
)
"""Sites that can be ablated."""

_MLP: Final = ("post", "mlp_out")
_TOGETHER: Final = {KV_HEAD: HEAD}


@dataclass(frozen=True, eq=False)
class Sites:
    """The sites of one model.

    Parameters
    ----------
    spliced
        Autoencoders, by the name of their latents' site.
    """

    model: CaptureModel
    spliced: Mapping[str, Spliced]

    @property
    def _cfg(self) -> Any:
        return self.model.model.cfg

    @property
    def n_layers(self) -> int:
        """Blocks of the model."""
        return int(self._cfg.n_layers)

    @property
    def n_heads(self) -> int:
        """Heads of a layer."""
        return int(self._cfg.n_heads)

    @property
    def n_vocab(self) -> int:
        """Entries of the vocabulary that the model has logits for."""
        return int(self.model.model.unembed.W_U.shape[1])

    @property
    def is_parallel(self) -> bool:
        """Whether attention and MLP read the same stream, so that there is no ``resid_mid``."""
        return bool(getattr(self._cfg, "parallel_attn_mlp", False))

    @property
    def has_mlps(self) -> bool:
        """Whether blocks have an MLP."""
        return not bool(getattr(self._cfg, "attn_only", False))

    @cached_property
    def neuron_site(self) -> str:
        """Where a neuron is traced: before its nonlinearity, or, where that is a product of two, after it."""
        gated = ACTIVATIONS["pre"].hook(0).replace("hook_pre", "hook_pre_linear") in self._hooks
        return "post" if gated or not self.has("pre") else "pre"

    @cached_property
    def _hooks(self) -> set[str]:
        return set(legacy_names(self.model).values())

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Size of each dim that is not a position."""
        cfg = self._cfg
        n_kv = int(getattr(cfg, "n_key_value_heads", None) or cfg.n_heads)
        d_mlp = getattr(cfg, "d_mlp", None)
        found = {
            HEAD: self.n_heads,
            KV_HEAD: n_kv,
            D_HEAD: int(cfg.d_head),
            D_MODEL: int(cfg.d_model),
        }
        return found | ({NEURON: int(d_mlp)} if d_mlp else {})

    def hook(self, site: str, layer: int | None) -> str:
        """Legacy hook name of a site."""
        return ACTIVATIONS[site].template.format(layer=layer)

    def has(self, site: str, layer: int | None = 0) -> bool:
        """Whether the model has a hook of that name."""
        return site in ACTIVATIONS and self.hook(site, layer) in self._hooks

    def dims(self, site: str) -> tuple[str, ...]:
        """Dims of a site's value for one prompt and layer."""
        return (POS, FEATURE) if site in self.spliced else ACTIVATIONS[site].dims

    def site(self, name: str, layer: int | None) -> str:
        """A site by its name or alias, which the model has at this layer.

        Raises
        ------
        SpecificationError
            There is none.
        """
        found = ALIASES.get(name, name)
        if found in self.spliced:
            return found
        if found not in ABLATED:
            near = difflib.get_close_matches(str(found), [*ABLATED, *self.spliced], n=3, cutoff=0.4)
            raise SpecificationError(
                f"no site {name!r}: expected one of {', '.join([*ABLATED, *self.spliced])}"
                + (f"; did you mean {near[0]!r}?" if near else "")
            )
        self._check_layer(found, layer)
        if found in _MLP and not self.has_mlps:
            raise SpecificationError(
                f"no {found!r} in model {self.model.name!r}: its blocks have attention only"
            )
        if found == "resid_mid" and (self.is_parallel or not self.has_mlps):
            raise SpecificationError(
                f"no 'resid_mid' in model {self.model.name!r}: nothing reads its stream between attention and the end of a "
                "block; use 'resid_pre' or 'resid_post'"
            )
        if found != "resid_mid" and not self.has(found, layer):
            raise SpecificationError(f"model {self.model.name!r} has no hook for {found!r}")
        return found

    def check_hook(self, name: str) -> None:
        """Raise unless an activation can be seen.

        Raises
        ------
        SpecificationError
            The model has no such hook.
        """
        if name == "resid_mid":
            self.site(name, 0)
        elif not self.has(name) or (name in _MLP and not self.has_mlps):
            raise SpecificationError(
                f"model {self.model.name!r} has no {name!r}: leave out the scalars that need it"
            )

    def _check_layer(self, site: str, layer: int | None) -> None:
        if not ACTIVATIONS[site].has_layers:
            if layer is not None:
                raise SpecificationError(f"{site!r} has no layer, got layer {layer}")
            return
        if layer is None:
            raise SpecificationError(f"{site!r} needs a layer, from 0 to {self.n_layers - 1}")
        if not 0 <= layer < self.n_layers:
            raise SpecificationError(
                f"no layer {layer} in model {self.model.name!r}: it has {self.n_layers}, 0 to {self.n_layers - 1}"
            )

    def _check_indices(self, site: str, indices: Mapping[str, Any], what: str) -> None:
        dims = tuple(_TOGETHER.get(dim, dim) for dim in self.dims(site))
        own = dict(zip(dims, self.dims(site), strict=True))
        for dim, given in indices.items():
            if dim not in own:
                raise SpecificationError(
                    f"{what} of {site!r} by {dim!r}: expected {', '.join(dims)}"
                )
            size = self._size(site, own[dim])
            for one in given if isinstance(given, tuple) else (given,):
                if size is not None and not 0 <= one < size:
                    raise SpecificationError(
                        f"no {dim} {one} in {what} of {site!r}: model {self.model.name!r} has {size}, 0 to {size - 1}"
                    )

    def _size(self, site: str, dim: str) -> int | None:
        if dim in (QUERY, KEY, POS):
            return None
        if dim == FEATURE:
            return self.spliced[site].n_features
        return self.sizes.get(dim)

    # --- what is asked ------------------------------------------------------------------------

    def check_ablation(self, one: Ablation) -> None:
        """Raise unless the model has what is to be ablated."""
        site = self.site(one.site, one.layer)
        self._check_indices(site, one.indices, "an ablation")

    def check_trace(self, trace: Trace) -> None:
        """Raise unless the model has the node, and what reads it is downstream."""
        site = self.site(trace.site, trace.layer)
        self._check_indices(site, trace.indices, "a trace")
        if trace.downstream is not None:
            self.check_trace(trace.downstream)

    def check_objective(self, objective: Objective) -> None:
        """Raise unless the model has what the objective reads."""
        if objective.kind == "node":
            site = self.site(str(objective.site), objective.layer)
            self._check_indices(site, objective.indices, "an objective")
            wanted = [_TOGETHER.get(dim, dim) for dim in self.dims(site)]
            missing = [dim for dim in wanted if dim not in objective.indices]
            if missing:
                raise SpecificationError(
                    f"an objective of one node of {site!r} needs {', '.join(wanted)}; missing: {', '.join(missing)}"
                )
        if objective.kind == "direction":
            self._check_direction(objective)

    def _check_direction(self, objective: Objective) -> None:
        if objective.site not in STREAMS:
            raise SpecificationError(
                f"a direction is in the stream: expected site resid_pre, resid_mid or resid_post, got {objective.site!r}"
            )
        self.site(objective.site, self.positive_layer(objective))
        n, d_model = len(objective.vector or ()), self.sizes[D_MODEL]
        if n != d_model:
            raise SpecificationError(
                f"a direction has {n} numbers, expected d_model of model {self.model.name!r}: {d_model}"
            )

    def positive_layer(self, objective: Objective) -> int:
        """Layer of an objective, counted from 0."""
        layer = int(objective.layer or 0)
        return layer + self.n_layers if layer < 0 else layer
