"""Child process of ``torchrun``: collective operations of the package on several GPUs, as in a real run.

``nccl``: one process alone in its group, which every call must pass through NCCL. ``train``: two processes that share
one GPU, which NCCL refuses and gloo does not, train as one process with the double batch would.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from lepton_vision.training import loop
from lepton_vision.training.distributed import World, join_world, local_device, start_group
from lepton_vision.training.loop import fit_model
from tests.training.tiny import TinyNetwork, plain_descent, tiny_config, tiny_loader


def speak_nccl() -> None:
    device = local_device(torch.device("cuda"))
    torch.cuda.set_device(device)
    start_group(device)
    assert distributed.get_backend() == "nccl"
    world = World(0, 2, device)  # as if there were another: it then leaves no call out
    assert world.total(torch.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]
    assert world.share({"val_loss": 0.5}) == {"val_loss": 0.5}
    assert world.any(True)
    assert not world.any(False)
    world.barrier()
    model = TinyNetwork(dropout=0.0).to(device).to(memory_format=torch.channels_last)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    world.broadcast(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    wrapped = world.wrap(model)
    assert isinstance(wrapped, DistributedDataParallel)
    images = torch.randn(4, 1, 8, 8, device=device)
    found = []
    for network in (model, wrapped):
        model.zero_grad()
        network(images).logits["finding"].square().sum().backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    for plain, shared in zip(*found, strict=True):
        torch.testing.assert_close(shared, plain, rtol=1e-3, atol=1e-5)
    with join_world(torch.device("cuda")) as joined:
        assert (joined.size, joined.device) == (1, device)
    distributed.destroy_process_group()


def train_together(folder: Path) -> None:
    loop.make_optimizer = plain_descent  # type: ignore[assignment]
    device = torch.device("cuda", 0)
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    model = TinyNetwork(dropout=0.0, norms=False)
    options = ("train.epochs=2", "train.accumulate_steps=2", "train.freeze_stages=2", "train.unfreeze_every=1")
    result = fit_model(
        model,
        tiny_loader(batch_size=4, rank=rank, world=2),
        tiny_config(*options, "train.keep=last"),
        validate=lambda _: {},
        run_dir=folder / "run",
        device=str(device),
    )
    torch.save({"state": result.state, "final": model.state_dict()}, folder / f"weights{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    speak_nccl() if sys.argv[1] == "nccl" else train_together(Path(sys.argv[2]))
