"""A rendered dataset as a Croissant 1.1 description (JSON-LD), which dataset venues and search engines read."""

from pathlib import Path
from typing import Any

from pipeline_lib.artifacts.files import sha256
from pipeline_lib.errors import InputError
from pipeline_lib.lineage.repository import DATASETS, Repository

CONTEXT: dict[str, Any] = {  # of the specification, http://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "key": "cr:key",
    "md5": "cr:md5",
    "prov": "http://www.w3.org/ns/prov#",
    "recordSet": "cr:recordSet",
    "repeated": "cr:repeated",
    "sc": "https://schema.org/",
    "source": "cr:source",
}
FIELDS = {
    "key": ("sc:Text", "Sample id; its files in the shard are KEY.png and KEY.json."),
    "prompt": ("sc:Text", "What the image was rendered from."),
    "seed": ("sc:Integer", "Of the image's noise."),
    "shard": ("sc:Text", "The tar that has the image."),
    "defect": ("sc:Text", "What is wrong with the image; mostly nothing."),
}


def dataset_description(repository: Repository, dataset: str) -> dict[str, Any]:
    """The description of a dataset as JSON-LD, with digests of the files on the disk.

    Raises:
        InputError: no finished stage wrote a dataset here, or it is absent.
    """
    stage, folder = repository.stage_of(dataset), Path(dataset)
    if folder.parent != Path(DATASETS) or not folder.is_dir():
        raise InputError(f"{dataset}: expected a dataset below {DATASETS}; `dvc pull` brings it")
    record, run = repository.records.get(stage), repository.runs[stage]
    params = ", ".join(f"{name} {value}" for name, value in run.params["synthesize"].items())
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in (".tar", ".jsonl"))
    sources = repository.graph.sources(stage)
    generators = {path for path in sources if repository.graph.kind(stage, path) == "generator weights"}
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": folder.name,
        "description": f"{record.images if record else 'Some'} synthetic images, rendered from text by a diffusion "
        f"model to calibrate quantized classifiers without real images. Settings: {params}.",
        "version": f"1.0.0+{run.outs[dataset].removesuffix('.dir')}",
        "url": f"file:{folder.as_posix()}",
        "prov:wasDerivedFrom": [
            {"@id": path, "prov:label": f"generator weights, md5 {sources[path]}"} for path in sorted(generators)
        ],
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": path.name,
                "name": path.name,
                "contentUrl": path.name,
                "contentSize": f"{path.stat().st_size} B",
                "encodingFormat": "application/x-tar" if path.suffix == ".tar" else "application/jsonlines",
                "sha256": sha256(path),
            }
            for path in files
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "samples",
                "name": "samples",
                "key": {"@id": "samples/key"},
                "field": [
                    {
                        "@type": "cr:Field",
                        "@id": f"samples/{name}",
                        "name": name,
                        "description": text,
                        "dataType": kind,
                        "source": {"fileObject": {"@id": "index.jsonl"}, "extract": {"column": name}},
                    }
                    for name, (kind, text) in FIELDS.items()
                ],
            }
        ],
    }
