# What unlock needs in an account: a KMS key, a bucket for the sealed passphrase, a
# role that can do nothing else, a launch template, and a record of who decrypted.
# The same as ../cloudformation.yaml.

terraform {
  required_version = ">= 1.5, < 2.0"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.36, < 6.0"
    }
  }
}

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}
data "aws_region" "this" {}

locals {
  sealed = var.source_of_keys == "s3"
}

module "policies" {
  source     = "./policies"
  sealed     = local.sealed
  purpose    = var.purpose
  key_arn    = aws_kms_key.this.arn
  role_arn   = aws_iam_role.this.arn
  bucket_arn = local.sealed ? aws_s3_bucket.this[0].arn : ""
  object     = var.object
}

resource "aws_iam_role" "this" {
  name = var.name
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Principal = { Service = "ec2.amazonaws.com" }, Action = "sts:AssumeRole" }]
  })
}

resource "aws_iam_role_policy" "this" {
  name   = "unlock"
  role   = aws_iam_role.this.id
  policy = module.policies.role
}

resource "aws_iam_instance_profile" "this" {
  name = var.name
  role = aws_iam_role.this.name
}

resource "aws_kms_key" "this" {
  description         = "Passphrases of volumes that unlock opens"
  enable_key_rotation = true
  # Without the key nothing can be read again.
  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_kms_key_policy" "this" {
  key_id = aws_kms_key.this.id
  policy = "{\"Version\":\"2012-10-17\",\"Statement\":[${jsonencode({
    Sid       = "Account"
    Effect    = "Allow"
    Principal = { AWS = "arn:${data.aws_partition.this.partition}:iam::${data.aws_caller_identity.this.account_id}:root" }
    Action    = "kms:*"
    Resource  = "*"
  })},${module.policies.key}]}"
}

resource "aws_kms_alias" "this" {
  name          = "alias/${var.name}"
  target_key_id = aws_kms_key.this.id
}

resource "aws_s3_bucket" "this" {
  count         = local.sealed ? 1 : 0
  bucket_prefix = "${var.name}-"
}

resource "aws_s3_bucket_versioning" "this" {
  count  = local.sealed ? 1 : 0
  bucket = aws_s3_bucket.this[0].id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_ownership_controls" "this" {
  count  = local.sealed ? 1 : 0
  bucket = aws_s3_bucket.this[0].id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  count  = local.sealed ? 1 : 0
  bucket = aws_s3_bucket.this[0].id
  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  count                   = local.sealed ? 1 : 0
  bucket                  = aws_s3_bucket.this[0].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_policy" "this" {
  count  = local.sealed ? 1 : 0
  bucket = aws_s3_bucket.this[0].id
  policy = module.policies.bucket
}

resource "aws_launch_template" "this" {
  name     = var.name
  image_id = var.image_id
  iam_instance_profile {
    arn = aws_iam_instance_profile.this.arn
  }
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
}

# A node that is stuck in its initramfs answers no load balancer, and without one fails
# EC2's status check, as its network is down: after the grace period it is replaced.
# What is on its instance store goes with it.
resource "aws_autoscaling_group" "this" {
  count                     = var.group == null ? 0 : 1
  name                      = var.name
  min_size                  = var.group.size
  max_size                  = var.group.size
  vpc_zone_identifier       = var.group.subnet_ids
  health_check_type         = length(var.group.target_group_arns) > 0 ? "ELB" : "EC2"
  health_check_grace_period = 600
  target_group_arns         = var.group.target_group_arns
  launch_template {
    id      = aws_launch_template.this.id
    version = aws_launch_template.this.latest_version
  }
}

resource "aws_security_group" "endpoint" {
  count       = var.vpc == null ? 0 : 1
  description = "HTTPS from the VPC to the endpoint of KMS"
  vpc_id      = var.vpc.id
  ingress {
    protocol    = "tcp"
    from_port   = 443
    to_port     = 443
    cidr_blocks = [var.vpc.cidr]
  }
}

resource "aws_vpc_endpoint" "kms" {
  count               = var.vpc == null ? 0 : 1
  vpc_id              = var.vpc.id
  vpc_endpoint_type   = "Interface"
  service_name        = "com.amazonaws.${data.aws_region.this.name}.kms"
  private_dns_enabled = true
  subnet_ids          = var.vpc.subnet_ids
  security_group_ids  = [aws_security_group.endpoint[0].id]
}

resource "aws_vpc_endpoint" "s3" {
  count             = local.sealed && var.vpc != null ? 1 : 0
  vpc_id            = var.vpc.id
  vpc_endpoint_type = "Gateway"
  service_name      = "com.amazonaws.${data.aws_region.this.name}.s3"
  route_table_ids   = var.vpc.route_table_ids
}

output "config" {
  description = "The key of /etc/unlock.toml"
  value       = <<-END
    [key]
    source  = "${local.sealed ? "s3://${aws_s3_bucket.this[0].id}/${var.object}" : "header"}"
    kms_key = "${aws_kms_key.this.arn}"
    context = { purpose = "${var.purpose}" }
  END
}

output "launch_template" {
  value = aws_launch_template.this.id
}
