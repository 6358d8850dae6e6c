"""What the accuracies say about the sources, in words."""

from collections import Counter

from pipeline_lib.report.leaderboard import Board, Setting


def overall_findings(board: Board) -> list[str]:
    """What all settings together say, a sentence each."""
    sentences = []
    contests = [setting for setting in board.settings if len(board.data_free(setting)) > 1]
    if contests:
        sentences.append(_most_accurate_source(board, contests))
    cells = [cell for setting in board.settings for cell in setting.cells.values()]
    if cells:
        gains = [cell.reconstructed.top1 - cell.nearest.top1 for cell in cells]
        improved = sum(gain > 0 for gain in gains)
        sentences.append(
            f"Reconstruction is more accurate than rounding to nearest in {improved} of "
            f"{_count(len(cells), 'cell')}; the mean change is {sum(gains) / len(gains):+.2f} points."
        )
    return sentences


def _most_accurate_source(board: Board, contests: list[Setting]) -> str:
    """Which data-free source wins in how many settings that have several of them."""
    wins: Counter[str] = Counter()
    ties = apart = 0
    for setting in contests:
        best = board.best(setting)
        if len(best) == 1:
            wins[best[0]] += 1
        else:
            ties += 1
        first, second = board.data_free(setting)[:2]
        if not _overlap(setting, first, second):
            apart += 1
    ranking = [f"{source} in {count}" for source, count in wins.most_common()]
    if ties:
        ranking.append(f"a tie in {ties}")
    return (
        f"Most accurate data-free source, over {_count(len(contests), 'setting')} of model and precision: "
        f"{', '.join(ranking)}. Its interval lies clear of the next source's in {apart} of {len(contests)}."
    )


def setting_finding(board: Board, setting: Setting) -> str:
    """What one setting says about its sources, in a sentence or two."""
    ranked, best = board.data_free(setting), board.best(setting)
    if not ranked:
        return f"{setting.title}: no data-free source was evaluated."
    top = setting.cells[ranked[0]].reconstructed
    text = (
        f"{setting.title}: {' and '.join(best)} {'is' if len(best) == 1 else 'tie as'} the most accurate data-free "
        f"source, {top.top1:.2f}% ({top.top1_low:.2f} to {top.top1_high:.2f}), "
        f"{_signed_distance(top.top1 - setting.float_result.top1)} the float network's"
    )
    others = [source for source in ranked if source not in best]
    if others:
        lead = top.top1 - setting.cells[others[0]].reconstructed.top1
        intervals = "overlap" if _overlap(setting, ranked[0], others[0]) else "do not overlap"
        text += f" and {lead:.2f} points above {others[0]}, the next; the two intervals {intervals}"
    for source in filter(setting.cells.__contains__, board.real):
        text += f". Calibrated on real images: {setting.cells[source].reconstructed.top1:.2f}%"
    return f"{text}."


def _overlap(setting: Setting, one: str, other: str) -> bool:
    """Whether the intervals of two sources of a setting have values in common."""
    a, b = setting.cells[one].reconstructed, setting.cells[other].reconstructed
    return a.top1_low <= b.top1_high and b.top1_low <= a.top1_high


def _signed_distance(points: float) -> str:
    """`1.25 points below`."""
    return f"{abs(points):.2f} points {'above' if points > 0 else 'below'}"


def _count(number: int, noun: str) -> str:
    """`1 cell`, `2 cells`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
