"""The three stages: `pretrain` without labels, `finetune` the teacher, `distil` the student."""
