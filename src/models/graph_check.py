"""Checks a declared graph against the module it describes, so that nothing is silently left out or touched twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TypeGuard

from torch import nn

from src.models.graph import Feed, Linear, Link, ModelGraph


class GraphError(Exception):
    """The declared graph and the loaded module disagree; the message lists every difference."""


def check_graph(graph: ModelGraph, module: nn.Module) -> None:
    """Compares ``graph`` with ``module``.

    Raises:
        GraphError: a declared path is missing or of another kind, a shape differs, a linear inside a block is
            undeclared, or a linear is in no link or in several.
    """
    modules = dict(module.named_modules())
    problems = [
        *_blocks(graph, modules),
        *_linears(graph, modules),
        *_links(graph, modules),
        *_single_modules(graph, modules),
    ]
    if problems:
        raise GraphError("graph and module disagree: " + "; ".join(problems))


def _blocks(graph: ModelGraph, modules: dict[str, nn.Module]) -> Iterator[str]:
    """Every block exists, and declares each linear inside it."""
    for block in graph.blocks:
        if block.path not in modules:
            yield f"block {block.path} does not exist"
            continue
        declared = {linear.path for linear in block.linears}
        inside = (name for name, child in modules.items() if name.startswith(f"{block.path}.") and _is_linear(child))
        yield from (f"linear {name} is not declared" for name in inside if name not in declared)


def _linears(graph: ModelGraph, modules: dict[str, nn.Module]) -> Iterator[str]:
    """Every declared linear exists with its shape, once, and reads exactly one link."""
    declared = Counter(linear.path for linear in graph.linears)
    linked = Counter(path for link in graph.links for path in link.linears)
    yield from (f"linear {path} is declared {count} times" for path, count in declared.items() if count > 1)
    yield from (f"linear {path} is in {linked[path]} links" for path in declared if linked[path] != 1)
    yield from (f"link names {path}, which no block declares" for path in linked if path not in declared)
    for linear in graph.linears:
        yield from _linear(linear, modules.get(linear.path))


def _linear(linear: Linear, found: nn.Module | None) -> Iterator[str]:
    if found is None:
        yield f"linear {linear.path} does not exist"
    elif not _is_linear(found):
        yield f"{linear.path} is a {type(found).__name__}, not a linear"
    elif (found.out_features, found.in_features) != (linear.out_features, linear.in_features):
        yield (
            f"{linear.path} is {found.out_features} x {found.in_features}, "
            f"declared {linear.out_features} x {linear.in_features}"
        )


def _links(graph: ModelGraph, modules: dict[str, nn.Module]) -> Iterator[str]:
    """Every link has a name of its own, and a source of the right kind and width."""
    names = Counter(link.name for link in graph.links)
    yield from (f"{count} links are named {name}" for name, count in names.items() if count > 1)
    for link in graph.links:
        source = modules.get(link.source)
        if source is None:
            yield f"source {link.source} of link {link.name} does not exist"
        else:
            yield from _source(link, source, modules)


def _source(link: Link, source: nn.Module, modules: dict[str, nn.Module]) -> Iterator[str]:
    """The source is a norm or a linear, as declared, and makes as many channels as the linears read."""
    if link.feed is Feed.ADAPTER:
        weight = dict(source.named_parameters(recurse=False)).get("weight")
        kind_fits, width = weight is not None, None if weight is None else len(weight)
    elif link.feed is Feed.POSITIONS:
        return
    elif link.feed is Feed.NORM:
        kind_fits = isinstance(source, nn.LayerNorm)
        width = source.normalized_shape[-1] if isinstance(source, nn.LayerNorm) else None
    else:
        kind_fits = _is_linear(source)
        width = getattr(source, "out_features", None)
    if not kind_fits:
        yield f"source {link.source} of link {link.name} is a {type(source).__name__}, not a {link.feed} source"
        return
    if link.source_rows is not None:
        start, stop = link.source_rows
        if not 0 <= start < stop <= (width or 0):
            yield f"rows {link.source_rows} of link {link.name} are not rows of {link.source}"
        width = stop - start
    if link.feed is Feed.ACTIVATION:
        return
    for path in link.linears:
        in_features = getattr(modules.get(path), "in_features", width)
        if in_features != width:
            yield f"{path} reads {in_features} channels, but {link.source} makes {width}"


def _single_modules(graph: ModelGraph, modules: dict[str, nn.Module]) -> Iterator[str]:
    """Norms, front-end, embedding and head are what they are called."""
    expected: list[tuple[str, type[nn.Module] | tuple[type[nn.Module], ...]]] = [
        (graph.encoder_norm, nn.LayerNorm),
        *([(graph.decoder_norm, nn.LayerNorm), (graph.embedding, nn.Embedding)] if graph.decoder else ()),
        (graph.head, nn.Linear),
        *((path, (nn.Conv1d, nn.Conv2d, nn.Linear)) for path in graph.frontend),
    ]
    for path, kind in expected:
        found = modules.get(path)
        if not isinstance(found, kind):
            names = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
            yield f"{path} is {'missing' if found is None else type(found).__name__}, not a {names}"


def _is_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    return isinstance(module, nn.Linear)
