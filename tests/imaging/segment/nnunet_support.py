"""Tiny nnU-Net models made by the library's own classes. Their weights are set so that what they do is known: a voxel
gets the label of a class when its value, normalised over the patch, exceeds that class's threshold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctfed.imaging.segment.nnunet import quiet, set_paths
from ctfed.imaging.segment.weights import write_manifest

FEATURES = [4, 8, 8]


def architecture() -> dict[str, Any]:
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 3,
            "features_per_stage": FEATURES,
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3] * 3] * 3,
            "strides": [[1] * 3, [2] * 3, [2] * 3],
            "n_conv_per_stage": [1] * 3,
            "n_conv_per_stage_decoder": [1] * 2,
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def plans(name: str, configuration: str, patch: Sequence[int], spacing: Sequence[float], reader: str) -> dict[str, Any]:
    resampling = {"order": 1, "order_z": 0, "force_separate_z": None}
    kept = {
        "data_identifier": "tiny",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch),
        "median_image_size_in_voxels": list(patch),
        "spacing": list(spacing),
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {"is_seg": False, **resampling},
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": {"is_seg": True, **resampling},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {"is_seg": False, **resampling},
        "architecture": architecture(),
        "batch_dice": True,
    }
    intensities = {"mean": -300.0, "std": 400.0, "percentile_00_5": -1000.0, "percentile_99_5": 400.0}
    return {
        "dataset_name": name,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": list(spacing),
        "original_median_shape_after_transp": list(patch),
        "image_reader_writer": reader,
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {configuration: kept},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {**intensities, "median": -300.0, "min": -1024.0, "max": 3000.0}
        },
    }


def threshold_network(classes: int, thresholds: Mapping[int, float]) -> Any:
    """nnU-Net's network for these plans; class c wins where the patch's normalised value is above ``thresholds[c]``
    and above that of every other class. Classes without a threshold never win."""
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    made = architecture()
    network = get_network_from_plans(
        made["network_class_name"], made["arch_kwargs"], made["_kw_requires_import"], 1, classes, deep_supervision=False
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.01)
        for module in network.modules():
            if isinstance(module, torch.nn.InstanceNorm3d):
                module.weight.fill_(1.0)
                module.bias.zero_()
        first = network.encoder.stages[0][0].convs[0].conv
        last = network.decoder.stages[-1].convs[0].conv
        head = network.decoder.seg_layers[-1]
        for layer, channel in ((first, 0), (last, FEATURES[0])):  # the skip comes after what is upsampled
            layer.weight[0] = 0.0
            layer.weight[0, channel, 1, 1, 1] = 1.0
            layer.bias[0] = 0.0
        head.weight.zero_()
        head.bias.fill_(-1000.0)
        head.bias[0] = 0.0
        for rank, (number, threshold) in enumerate(sorted(thresholds.items(), key=lambda item: item[1]), start=1):
            # Lines of growing slope that cross the one before at their threshold: the last one crossed wins.
            head.weight[number, 0] = 10.0 * rank
            below = sum(sorted(thresholds.values())[:rank])
            head.bias[number] = -10.0 * below
            assert threshold == sorted(thresholds.values())[rank - 1]
    return network


def write_model(
    folder: Path,
    labels: Mapping[str, Any],
    thresholds: Mapping[int, float],
    *,
    patch: Sequence[int],
    spacing: Sequence[float],
    folds: int = 1,
    trainer: str = "nnUNetTrainer",
    configuration: str = "3d_fullres",
    reader: str = "SimpleITKIO",
    manifest: bool = True,
) -> Path:
    """``folder/<trainer>__nnUNetPlans__<configuration>`` as nnU-Net leaves it after training, and a manifest."""
    set_paths()
    with quiet():
        import torch

        place = folder / f"{trainer}__nnUNetPlans__{configuration}"
        place.mkdir(parents=True)
        dataset = {"channel_names": {"0": "CT"}, "labels": dict(labels), "numTraining": 1, "file_ending": ".nii.gz"}
        (place / "dataset.json").write_text(json.dumps(dataset))
        (place / "plans.json").write_text(json.dumps(plans(folder.name, configuration, patch, spacing, reader)))
        for fold in range(folds):
            torch.manual_seed(fold)
            checkpoint = {
                "network_weights": threshold_network(len(labels), thresholds).state_dict(),
                "trainer_name": trainer,
                "init_args": {"configuration": configuration},
                "inference_allowed_mirroring_axes": (0, 1, 2),
            }
            (place / f"fold_{fold}").mkdir()
            torch.save(checkpoint, place / f"fold_{fold}" / "checkpoint_final.pth")
    if manifest:
        write_manifest(folder, "tiny")
    return folder


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2.0 * float((a & b).sum()) / float(a.sum() + b.sum())
