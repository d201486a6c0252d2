"""Where the time goes: a step by formula and by the clock, passes, precision, bytes that are kept.

Chapter: where_the_time_goes.
"""

from nanogpt2.studies.where_the_time_goes.formats import (
    format_frames,
    outlier_rows,
    product_rows,
    product_tensors,
    through,
)
from nanogpt2.studies.where_the_time_goes.measures import (
    graphs,
    in_bf16_masters,
    kept_bytes,
    layer_values,
    model_keeps,
    packing_rate,
    pass_work,
    slice_of,
    step_seconds,
    work_of,
)
from nanogpt2.studies.where_the_time_goes.pictures import (
    attention_frame,
    memory_frame,
    step_frame,
    where_it_went,
)
from nanogpt2.studies.where_the_time_goes.roofline import (
    LAYER_VALUES,
    mfu_rows,
    part_rows,
    record_step,
    step_parts,
)
