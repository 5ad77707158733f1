variable "name" {
  description = "Of the role, the alias of the key, and the metric of denied decryptions"
  type        = string
  default     = "unlock"
}

variable "source_of_keys" {
  description = "s3: a passphrase sealed in the bucket; header: a data key in each LUKS header"
  type        = string
  default     = "s3"
  validation {
    condition     = contains(["s3", "header"], var.source_of_keys)
    error_message = "source_of_keys is s3 or header."
  }
}

variable "object" {
  description = "Key of the object with the ciphertext"
  type        = string
  default     = "LuksInternalStorageKey"
}

variable "purpose" {
  description = "Value of purpose in the KMS encryption context"
  type        = string
  default     = "secretfs"
}

variable "image_id" {
  description = "Image with unlock for the launch template; null leaves the choice to who launches"
  type        = string
  default     = null
}

variable "vpc" {
  description = "VPC that gets endpoints for KMS and S3; null makes none"
  type = object({
    id              = string
    cidr            = string
    subnet_ids      = list(string)
    route_table_ids = list(string)
  })
  default = null
}

variable "trail_lock_days" {
  description = "Days for which nobody can remove a file of the trail"
  type        = number
  default     = 90
}

variable "audit_regions" {
  description = "Regions of whose calls the table for Athena tells"
  type        = list(string)
  default = [
    "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-southeast-1", "ap-southeast-2", "ca-central-1", "eu-central-1",
    "eu-north-1", "eu-west-1", "eu-west-2", "eu-west-3", "sa-east-1", "us-east-1", "us-east-2", "us-west-1", "us-west-2"
  ]
}

variable "instance_store" {
  description = "The volumes lie on instance store: that another instance opens one's disks is a finding of the queries"
  type        = bool
  default     = true
}

variable "alarm_topic" {
  description = "ARN of an SNS topic told of denied decryptions, of others who use the key, and of changes to it; null tells nobody"
  type        = string
  default     = null
}

variable "group" {
  description = "Auto Scaling group of the launch template; null makes none. A load balancer's target groups say whether an instance is healthy, if there are any"
  type = object({
    size              = number
    subnet_ids        = list(string)
    target_group_arns = optional(list(string), [])
  })
  default = null
}
