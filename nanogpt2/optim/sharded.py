"""MuonAdamW on any number of ranks: each keeps all parameters, and a share of all else.

The scheme is ZeRO's second stage (Rajbhandari et al., arXiv 1910.02054) without a wrapper around
the model: gradients are reduced here, once a step, after accumulation. What is dealt out is a
``Stack`` of equal slices: the rows of one AdamW parameter, or all Muon matrices of one shape. A
step has three phases, so that one stack travels while another is worked on:

1. launch all reductions: reduce-scatter of every stack, filled up with zeros to a multiple of the
   world size; all-reduce of parameters under 1,024 elements, which are not worth cutting up;
2. as each arrives, update the owned slices and launch their all-gather;
3. wait for the gathers and copy back.

On one process nothing travels, and the update is all of it. Chapter: zero2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from nanogpt2.optim.adamw import adamw_scalars
from nanogpt2.optim.collectives import Collectives, bounds, padded
from nanogpt2.optim.fast import Steps, in_place
from nanogpt2.optim.groups import Named
from nanogpt2.optim.muon import muon_scalars, second_moment_shape

SMALL = 1024
"""parameters with fewer elements are replicated instead of dealt out"""

Share = tuple[str, int, int, dict[str, Tensor]]
"""parameter name, first row, last row + 1, the state of these rows"""


class Stack:
    """``count`` equal slices (count, ...), dealt out: ceil(count / W) each, the last ranks fewer.

    Here the slices are the rows of one AdamW parameter. One of fewer than ``SMALL`` elements is
    replicated: every rank owns, and updates, all of it.
    """

    def __init__(self, named: Named, group: dict[str, Any], comm: Collectives, count: int) -> None:
        self.names, self.params = [name for name, _ in named], [p for _, p in named]
        self.group, self.comm, self.count = group, comm, count
        large = group["kind"] == "muon" or self.params[0].numel() >= SMALL
        self.dealt = large and comm.world_size > 1
        ranks, rank = (comm.world_size, comm.rank) if self.dealt else (1, 0)
        self.each = -(-count // ranks)
        self.start, self.stop = bounds(count, ranks, rank)
        self.square = torch.zeros(())
        self.state = {
            key: torch.zeros(shape, dtype=torch.float32, device=self.params[0].device)
            for key, shape in self.state_shapes(self.stop - self.start).items()
        }  # fp32 also for bf16 tables, since a decay of 0.995 needs it

    def launch(self) -> None:
        """Phase 1: send the gradients off."""
        W = self.comm.world_size
        if self.dealt:
            self.sent = padded(self.gradients().to_dense(), self.each * W)
            self.reduced = self.comm.reduce_scatter(self.sent)
        elif W > 1:
            self.reduced = self.comm.all_reduce(self.gradients().to_dense().clone())

    def update(self, steps: Steps, measure: bool) -> None:
        """Phase 2: update the owned slices, and send them off."""
        if self.comm.world_size == 1:
            g = self.gradients()
        else:
            g = self.reduced.wait()[: self.stop - self.start].div_(self.comm.world_size)
            del self.reduced
        if measure and (self.dealt or self.comm.rank == 0):
            numbers = g.values() if g.is_sparse else g
            self.square = torch.linalg.vector_norm(numbers, dtype=torch.float32).square()
        w = self.slices(self.start, self.stop)
        if len(w):
            self.step(w, g, steps)
        if self.dealt:
            part = w.new_zeros(self.each, *w.shape[1:])
            part[: len(w)] = w
            self.gathered = self.comm.all_gather(self.room(), part)
        else:
            self.put(w)

    def finish(self) -> None:
        """Phase 3: take in what the other ranks have updated."""
        if self.dealt:
            self.put(self.gathered.wait()[: self.count])
            del self.gathered, self.sent

    def put(self, whole: Tensor) -> None:
        """Copy all slices into the parameters, unless they were updated where they stand."""
        if whole.data_ptr() != self.params[0].data_ptr():
            each = whole.view(len(self.params), *self.params[0].shape)
            torch._foreach_copy_([p.data for p in self.params], list(each.unbind()))

    def state_shapes(self, owned: int) -> dict[str, tuple[int, ...]]:
        """Shape of each state of ``owned`` slices."""
        return dict.fromkeys(("exp_avg", "exp_avg_sq"), (owned, *self.params[0].shape[1:]))

    def gradients(self) -> Tensor:
        """This rank's gradient of the whole stack; a table's may be sparse."""
        return gradient_of(self.params[0])

    def slices(self, start: int, stop: int) -> Tensor:
        """These slices of the parameters; no copy where they lie side by side in memory."""
        return self.params[0].data[start:stop]

    def room(self) -> Tensor:
        """Memory for what is gathered: the parameter's own where it fits, else the gradient's."""
        p = self.params[0].data
        return p if len(p) == self.each * self.comm.world_size else self.sent

    def step(self, w: Tensor, g: Tensor, steps: Steps) -> None:
        """Update slices ``w`` and their state in place."""
        scalars = adamw_scalars(self.group, self.group["step"])
        steps.adamw(w, g, *self.state.values(), *scalars, self.group["eps"])

    def shares(self) -> Iterator[Share]:
        """What this rank owns."""
        yield self.names[0], self.start, self.stop, self.state


class Matrices(Stack):
    """Muon matrices of one shape: each slice is one of them."""

    def state_shapes(self, owned: int) -> dict[str, tuple[int, ...]]:
        shape = self.params[0].shape
        second = second_moment_shape(owned, *shape)
        return {"momentum_buffer": (owned, *shape), "second_moment": second}

    def gradients(self) -> Tensor:
        return _stacked([gradient_of(p) for p in self.params])

    def slices(self, start: int, stop: int) -> Tensor:
        owned = [p.data for p in self.params[start:stop]]
        return _stacked(owned) if owned else self.params[0].new_empty(0, *self.params[0].shape)

    def room(self) -> Tensor:
        return self.sent

    def step(self, w: Tensor, g: Tensor, steps: Steps) -> None:
        steps.muon(self.group, w, g, *self.state.values(), *muon_scalars(self.group, *w.shape[1:]))

    def shares(self) -> Iterator[Share]:
        for i, name in enumerate(self.names[self.start : self.stop]):
            yield name, 0, len(self.params[0]), {k: v[i] for k, v in self.state.items()}


def stacks_of(group: dict[str, Any], comm: Collectives) -> list[Stack]:
    """What is dealt out of one of the optimizer's groups."""
    named = list(zip(group["names"], group["params"], strict=True))
    if group["kind"] == "adamw":
        return [Stack([one], group, comm, len(one[1])) for one in named]
    alone = in_place(group["params"][0], comm.world_size)
    together = [[one] for one in named] if alone else [named]
    return [Matrices(some, group, comm, len(some)) for some in together]


def gradient_of(p: nn.Parameter) -> Tensor:
    """The gradient of ``p``: zero where the loss did not reach; sparse where only some rows did."""
    if p.grad is None:
        return torch.zeros_like(p)
    return p.grad.coalesce() if p.grad.is_sparse else p.grad


def _stacked(matrices: list[Tensor]) -> Tensor:
    """(K, rows, cols); one matrix alone is not copied."""
    return matrices[0][None] if len(matrices) == 1 else torch.stack(matrices)


class MuonAdamW(torch.optim.Optimizer):
    """Muon for matrices, AdamW for the rest, over any number of ranks.

    Args:
        groups: from ``nanogpt2.optim.groups.parameter_groups``.
        compiled: compile the step functions (at the first step).
        dtype: precision of Muon's products.
        process_group: ranks that share the work; None is all of them.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        compiled: bool = False,
        dtype: torch.dtype = torch.bfloat16,
        process_group: Any = None,
    ) -> None:
        super().__init__(groups, defaults={"step": 0})
        self.comm = Collectives(process_group)
        self._device = self.param_groups[0]["params"][0].device
        self.steps = Steps(self._device, compiled, dtype)
        self.stacks = [s for group in self.param_groups for s in stacks_of(group, self.comm)]
        self.state.update({stack.params[0]: stack.state for stack in self.stacks})
        self.measure_gradient = False
        """whether a step also takes the norm of the averaged gradient (one more pass over it)"""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Average gradients over the ranks, update, leave all ranks with equal parameters."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            group["step"] += 1
        for stack in self.stacks:
            with self.comm.timed("launch", stack.names[0]):
                stack.launch()
        for stack in self.stacks:
            with self.comm.timed("update", stack.names[0]):
                stack.update(self.steps, self.measure_gradient)
        for stack in self.stacks:
            with self.comm.timed("finish", stack.names[0]):
                stack.finish()
        return loss

    def gradient_square(self) -> Tensor:
        """This rank's part of the squared norm of the last measured step's gradient (0-d)."""
        return torch.stack([stack.square.to(self._device) for stack in self.stacks]).sum()

    def state_bytes(self) -> int:
        """Bytes of optimizer state on this rank."""
        return sum(tensor.nbytes for stack in self.stacks for tensor in stack.state.values())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore this rank's state in fp32; torch would cast it to the parameter's precision."""
        params = [p for group in self.param_groups for p in group["params"]]
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update({k: v for k, v in saved.items() if k not in ("params", "names")})
        for index, entry in state_dict["state"].items():
            for key, value in entry.items():
                self.state[params[index]][key].copy_(value)

    def shard_state(self) -> Iterator[Share]:
        """(parameter name, start row, stop row, {state name: tensor}) for all that this rank owns.

        Tensors are the live state, not copies. Independent of the world size: ``load_shards`` puts
        shares of any other number of ranks together again.
        """
        for stack in self.stacks:
            yield from stack.shares()

    def load_shards(self, read: Callable[[str, str, int, int], Tensor], step: int) -> None:
        """Fill this rank's state with ``read(parameter name, state name, start row, stop row)``."""
        for name, start, stop, state in self.shard_state():
            for key, tensor in state.items():
                tensor.copy_(read(name, key, start, stop))
        for group in self.param_groups:
            group["step"] = step
