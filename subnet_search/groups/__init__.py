"""Which channels of a network can be searched, where they are masked, and what they cost."""

from subnet_search.groups.channel_group import Branch, ChannelGroup, GroupGraph, LeftWhole, ResizeCall, Slice
from subnet_search.groups.cost import layer_macs, macs
from subnet_search.groups.find import check_groups, find_groups
from subnet_search.groups.slicing import SlicedNetwork, slice_network
from subnet_search.groups.trunk import trunk_groups, trunk_layers, trunk_macs, trunk_shares
from subnet_search.groups.verify import masked

__all__ = [
    "Branch",
    "ChannelGroup",
    "GroupGraph",
    "LeftWhole",
    "ResizeCall",
    "Slice",
    "SlicedNetwork",
    "check_groups",
    "find_groups",
    "layer_macs",
    "macs",
    "masked",
    "slice_network",
    "trunk_groups",
    "trunk_layers",
    "trunk_macs",
    "trunk_shares",
]
