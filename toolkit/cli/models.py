"""`trtk models`: the model families that trtk converts."""

from __future__ import annotations

import click

from toolkit.cli import output


@click.command(epilog=output.examples("trtk models", "trtk models --json"))
@output.json_option
def models(as_json: bool) -> None:
    """List the model families that trtk converts or plans, by the architecture their config.json names."""
    from toolkit.models import ModelFamily, PlannedFamily, catalogue, planned

    families: tuple[ModelFamily | PlannedFamily, ...] = (*catalogue(), *planned())
    if as_json:
        fields = ("name", "title", "architectures", "notes")
        described = [{field: getattr(family, field) for field in fields} for family in families]
        for document, family in zip(described, families, strict=True):
            document["is_converted"] = family in catalogue()
        output.document({"models": described})
        return
    rows = [(family.name, family.title, "\n".join(family.architectures), family.notes) for family in families]
    output.table("Model families", ("family", "models", "architectures", "notes"), rows)
    output.text("MODEL is a hub id (org/name[@revision]), a local Hugging Face folder, or `demo`.")
