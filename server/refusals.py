"""What a site's refusal means for the server: whether to wait for the site to change its mind, and who can change what.

Lasting refusals follow from the question and the site's policy alone: asked again, the site declines again. Passing
ones end when a person at the site acts. That a study, a roster or a policy is not approved counts as passing, because a
steward may be about to approve it.
"""

from __future__ import annotations

from collections.abc import Iterable

DECLINED = "refused:"  # then the rule; see ctfed.federation.flower.records.public_reason
NOT_UNDERSTOOD = "error:MalformedMessage"
CONFIRMED = 3  # times that a site must not understand a question: one that was damaged on its way is sent again

LASTING: dict[str, str] = {
    # the study asks for more than the site's policy or its own approved text allows
    "cell-minimum": "raise the study's evaluation.min_cell to the site's",
    "too-few-sites": "leave out the split to which few sites contribute, or find more sites",
    "too-few-patients": "use fewer folds, a larger split or larger subgroups",
    "too-few-events": "use fewer folds, a larger split or larger subgroups",
    "too-many-parameters": "choose fewer features",
    "too-many-cells": "merge bins, or agree on the exception fine_evaluation_tables with every site",
    "off-grid": "take the times from the study's time grid",
    "needs-pooled": "use risk_sets: pooled, or ask nothing by time bin",
    "small-bin": "use wider time bins",
    "rare-level": "leave the feature out, or merge its levels",
    "published-batch": "take no harmonization.reference, or agree on the exception reference_batch with every site",
    "too-many-rounds": "use fewer penalties, folds or trials",
    "too-many-bins": "use wider time bins or an earlier end of the time grid",
    "too-many-cuts": "use fewer levels or score bins, or a narrower range",
    "too-many-tables": "ask fewer tables about the same patients",
    "too-many-points": "use updates: newton, or risk_sets: stratified",
    "numbers-per-bin": "raise evaluation.min_cell, or use updates: gradient or risk_sets: stratified",
    "hazards-on-faith": "ask for risk sets before hazards, and for fewer hazards",
    "released-budget": "use fewer penalties or features",
    "outside-study": "name in the study what is asked, and have every site approve it",
    "undeclared-query": "ask for statistics of this version of ctfed alone",
    "too-large": "ask for fewer features or models at once",
    # the site's data do not fit the study
    "fixed-point-range": "declare a larger magnitude or range for the feature in the study's variables",
    "missing-value": "impute the variable in the study",
    "missing-values": "impute the variable in the study",
    "unknown-column": "take a variable that every site has, or have the site prepare it",
    "unknown-level": "name every level of the variable in the study",
    "not-answerable": "look at the site's node.log: its data do not allow this question",
    "too-many-refusals": "look at the sentences in the site's ledger, and begin a new run in another --out",
    # the run is not the one that the site has begun
    "round-answered": "begin a new run in another --out; the journal is not of the run that the site has answered",
    "session-changed": "begin a new run in another --out",
    "not-joined": "begin a new run in another --out",
    "unmasked": "serve with the roster with which the site joined",
    "no-keys": "start the site with its keys and roster, or serve without a roster",
    "census-seal": "begin a new run in another --out, after the sites have compared their rosters",
    "census-sum": "begin a new run in another --out",
    # not ctfed's own bundle
    "other_app": "run `ctfed serve`; the site runs no other app",
    "unreadable_bundle": "install the same version of ctfed at server and site",
    "bundle_carries_code": "run `ctfed serve`; the site runs the code of its own image alone",
}

PASSING: dict[str, str] = {
    "study-not-approved": "the site's steward approves the study with `ctfed approve`",
    "roster-not-approved": "the site's steward compares the roster and approves it with `ctfed approve`",
    "policy-not-approved": "the site's steward approves again with `ctfed approve`, because its policy has changed",
    "approval-not-in-ledger": "the site's steward approves again with `ctfed approve`",
    "too-many-runs": "the site's steward allows it with `ctfed approve --allow more-runs`",
    "cohort-difference": "the site's steward allows it with `ctfed approve --allow cohort-difference`",
    "roster-difference": "the site's steward allows it with `ctfed approve --allow roster-difference`",
    "cohort-changed": "the site restores its table, or begin a new run in another --out",
    "answer-lost": "the site restores its ledger's folder 'answers', or begin a new run in another --out",
    "own-ledger": "the site restores its newest ledger; else the other sites accept it with `ctfed ledger accept`",
    "peer-ledger": "the site asks its peer what happened, then `ctfed ledger accept`",
}


def rule_of(said: str) -> str:
    """The rule in a site's last word; '' when that was no refusal."""
    return said.removeprefix(DECLINED) if said.startswith(DECLINED) else ""


def is_lasting(said: str, asked: int) -> bool:
    """Whether a site that was asked ``asked`` times, and then said this, will say the same next time."""
    return rule_of(said) in LASTING or (said == NOT_UNDERSTOOD and asked >= CONFIRMED)


def advice(said: Iterable[str]) -> str:
    """What can be changed about some sites' last words: one sentence per rule, '' when nothing is known."""
    sentences = []
    for word in dict.fromkeys(said):
        rule = rule_of(word)
        if word == NOT_UNDERSTOOD:
            sentences.append("MalformedMessage: install the same version of ctfed at server and site")
        elif rule in LASTING or rule in PASSING:
            sentences.append(f"{rule}: {LASTING.get(rule) or PASSING[rule]}")
    return ". ".join(sentences)
