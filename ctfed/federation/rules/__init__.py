"""The gate's rules, each with a name that may leave the site and a sentence that stays there.

scope       what the approved study lets be asked
question    what a single query may tell
budget      what all queries of a run may tell together
runs        what a run may be, beside the runs before it
"""
