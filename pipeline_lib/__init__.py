"""Data-free quantization of image classifiers with mixup-class prompts."""
