"""Everything that leans on Flower: records, the in-process grid, the warm executor, the SuperNode, the Control API.

Flower's interface changes every month, so flwr is pinned exactly and only these modules, the ClientApp and the
ServerApp import it. Modules here say which of Flower's private names they use.
"""
