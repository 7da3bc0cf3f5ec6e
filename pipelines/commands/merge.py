"""The work of ``ogpsa merge``: repair a fine-tuned model with a safe one, where it left the direction of alignment."""

from __future__ import annotations

from pipelines.configs.merge import MergeConfig
from pipelines.core.making import find
from pipelines.merging.making import MergeResult, make_results, open_merge, rule_of, thresholds_of, wanted_results
from pipelines.merging.sources import check_unchanged, merge_inputs, named_sources, resolve_sources


def run(config: MergeConfig) -> MergeResult:
    """Merge as ``config`` says, or find it done.

    Raises:
        ConfigError: options do not go with the inputs.
        InputError: an input is missing, damaged, pickled, not finite, or does not fit the others.
        ArtifactError: something else lies at ``--out``, or a run does not verify.
    """
    sources = resolve_sources(config)
    wanted = wanted_results(config, merge_inputs(sources))
    for each in wanted:
        # An obstacle at the output is reported before the weights are opened.
        find(each)
    return make_results(open_merge(config, sources), config, sources, wanted)


def plan(config: MergeConfig) -> list[tuple[str, str]]:
    """What :func:`run` would do, with the cosine of each layer and the decision; writes nothing.

    Raises:
        ConfigError: as for :func:`run`.
        InputError: as for :func:`run`.
        ArtifactError: as for :func:`run`.
    """
    sources = resolve_sources(config)
    opened = open_merge(config, sources)
    rows = [(name, source.reference) for name, source in named_sources(sources)]
    rows += [("unpaired", text) for text in opened.unpaired]
    if not config.needs_criterion:
        return [*rows, ("layers", f"all merged by {config.method}, weights {config.weights}")]
    first = opened.report(config.cos_threshold[0])
    check_unchanged(sources)
    thresholds = thresholds_of(config, first)
    for threshold in thresholds:
        count = sum(rule_of(config).is_below(record.rho, threshold) for record in first if record.rho is not None)
        rows.append(("threshold", f"{threshold:.5g}: {count} of {len(first)} layers below"))
    for record in first:
        below = [record.rho is not None and rule_of(config).is_below(record.rho, value) for value in thresholds]
        words = ", ".join(config.repair.action if is_below else "kept" for is_below in below)
        rows.append((record.layer, f"rho {record.rho:.5f}  {words}" if record.rho is not None else record.action))
    return rows
