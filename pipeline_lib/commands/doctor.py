"""`python -m pipeline_lib doctor`."""

import platform
from importlib.metadata import version

import typer

from pipeline_lib.command import guarded
from pipeline_lib.errors import InputError
from pipeline_lib.params.everything import read_everything

PACKAGES = ("torch", "torchvision", "diffusers", "transformers", "timm", "dvc", "webdataset", "pillow", "pandas")

app = typer.Typer()


@app.command()
@guarded
def doctor() -> None:
    """Look at the machine and at all that params.yaml names, before anything expensive runs: seconds, nothing written.

    Reads class list, prompts, generator, networks, labelled images; tries each; tells time and disk. Exit code 2 if a
    stage would refuse something.
    """
    params = read_everything()
    print(f"python {platform.python_version()} on {platform.platform()}")
    print(", ".join(f"{package} {version(package)}" for package in PACKAGES))

    import torch

    from pipeline_lib.doctor.examine import examine
    from pipeline_lib.fakequant import backend
    from pipeline_lib.quantization.families import check_families

    print(f"cpu: {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print(f"gpu: {', '.join(names) or 'none; synthesis and reconstruction run on the CPU'}")
    for device in ("cpu", "cuda"):
        print(f"fake-quant operators on {device}: {backend(device)}")
    check_families(params.reconstruct, params.methods, params.precisions)
    cells = len(params.axes.sources) * len(params.axes.models) * len(params.axes.precisions)
    print(f"params.yaml: valid, {cells} cells")
    failed = 0
    for finding in examine(params):
        print(f"{finding.status:4}  {finding.about}: {finding.text}", flush=True)
        failed += finding.status == "FAIL"
    if failed:
        raise InputError(f"{failed} of these would stop a run: mend what is marked FAIL above, then run this again")
