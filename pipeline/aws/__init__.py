"""AWS: the way of plugins to its services. A client whose errors say what happens next, and messages as SNS and SQS take them."""

from pipeline.aws.client import Aws, AwsConfig
from pipeline.aws.entries import AwsEntryConfig

__all__ = ["Aws", "AwsConfig", "AwsEntryConfig"]
