# Management events have the calls to KMS; data events those for the object. All
# Regions: a replica of a multi-Region key decrypts elsewhere what this one encrypted.
resource "aws_cloudtrail" "this" {
  name                          = var.name
  is_multi_region_trail         = true
  include_global_service_events = true
  enable_log_file_validation    = true
  s3_bucket_name                = aws_s3_bucket.trail.id
  cloud_watch_logs_group_arn    = "${aws_cloudwatch_log_group.trail.arn}:*"
  cloud_watch_logs_role_arn     = aws_iam_role.trail.arn
  event_selector {
    read_write_type           = "All"
    include_management_events = true
    dynamic "data_resource" {
      for_each = aws_s3_bucket.this
      content {
        type   = "AWS::S3::Object"
        values = ["${data_resource.value.arn}/${var.object}"]
      }
    }
  }
  depends_on = [aws_s3_bucket_policy.trail, aws_iam_role_policy.trail]
}

locals {
  trail_arn = "arn:${data.aws_partition.this.partition}:cloudtrail:${data.aws_region.this.name}:${data.aws_caller_identity.this.account_id}:trail/${var.name}"
}

resource "aws_s3_bucket" "trail" {
  bucket_prefix       = "${var.name}-trail-"
  object_lock_enabled = true
}

# Nobody removes or changes a file before its time, the account's root included.
resource "aws_s3_bucket_versioning" "trail" {
  bucket = aws_s3_bucket.trail.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_object_lock_configuration" "trail" {
  bucket = aws_s3_bucket.trail.id
  rule {
    default_retention {
      mode = "COMPLIANCE"
      days = var.trail_lock_days
    }
  }
  depends_on = [aws_s3_bucket_versioning.trail]
}

resource "aws_s3_bucket_public_access_block" "trail" {
  bucket                  = aws_s3_bucket.trail.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_policy" "trail" {
  bucket = aws_s3_bucket.trail.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect    = "Allow"
        Principal = { Service = "cloudtrail.amazonaws.com" }
        Action    = "s3:GetBucketAcl"
        Resource  = aws_s3_bucket.trail.arn
        Condition = { StringEquals = { "aws:SourceArn" = local.trail_arn } }
      },
      {
        Effect    = "Allow"
        Principal = { Service = "cloudtrail.amazonaws.com" }
        Action    = "s3:PutObject"
        Resource  = "${aws_s3_bucket.trail.arn}/AWSLogs/${data.aws_caller_identity.this.account_id}/*"
        Condition = { StringEquals = { "s3:x-amz-acl" = "bucket-owner-full-control", "aws:SourceArn" = local.trail_arn } }
      },
      {
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = [aws_s3_bucket.trail.arn, "${aws_s3_bucket.trail.arn}/*"]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })
}

resource "aws_cloudwatch_log_group" "trail" {
  name              = "${var.name}-trail"
  retention_in_days = 90
}

resource "aws_iam_role" "trail" {
  name = "${var.name}-trail"
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Principal = { Service = "cloudtrail.amazonaws.com" }, Action = "sts:AssumeRole" }]
  })
}

resource "aws_iam_role_policy" "trail" {
  name = "log"
  role = aws_iam_role.trail.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
      Resource = "${aws_cloudwatch_log_group.trail.arn}:*"
    }]
  })
}

resource "aws_cloudwatch_log_metric_filter" "denied" {
  name           = "${var.name}-denied"
  log_group_name = aws_cloudwatch_log_group.trail.name
  pattern        = "{ ($.eventSource = \"kms.amazonaws.com\") && ($.eventName = \"Decrypt\") && ($.errorCode = \"AccessDenied*\") }"
  metric_transformation {
    namespace     = var.name
    name          = "DeniedDecrypt"
    value         = "1"
    default_value = 0
  }
}

resource "aws_cloudwatch_metric_alarm" "denied" {
  alarm_name          = "${var.name}-denied"
  alarm_description   = "KMS denied a Decrypt"
  namespace           = var.name
  metric_name         = "DeniedDecrypt"
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  threshold           = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic == null ? [] : [var.alarm_topic]
}

# Sealing and rotating are done by others than the role, and are seen too.
resource "aws_cloudwatch_log_metric_filter" "used" {
  name           = "${var.name}-used"
  log_group_name = aws_cloudwatch_log_group.trail.name
  pattern        = "{ ($.eventSource = \"kms.amazonaws.com\") && ($.resources[0].ARN = \"*:key/${aws_kms_key.this.key_id}\") && ($.errorCode NOT EXISTS) && (($.eventName = \"Decrypt\") || ($.eventName = \"GenerateDataKey*\") || ($.eventName = \"ReEncrypt\")) && (($.userIdentity.sessionContext.sessionIssuer.arn NOT EXISTS) || ($.userIdentity.sessionContext.sessionIssuer.arn != \"${aws_iam_role.this.arn}\")) }"
  metric_transformation {
    namespace     = var.name
    name          = "UsedByOthers"
    value         = "1"
    default_value = 0
  }
}

resource "aws_cloudwatch_metric_alarm" "used" {
  alarm_name          = "${var.name}-used"
  alarm_description   = "Another principal than the role used the key"
  namespace           = var.name
  metric_name         = "UsedByOthers"
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  threshold           = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic == null ? [] : [var.alarm_topic]
}

resource "aws_cloudwatch_log_metric_filter" "changed" {
  name           = "${var.name}-changed"
  log_group_name = aws_cloudwatch_log_group.trail.name
  pattern        = "{ ($.eventSource = \"kms.amazonaws.com\") && ($.resources[0].ARN = \"*:key/${aws_kms_key.this.key_id}\") && (($.eventName = \"CreateGrant\") || ($.eventName = \"PutKeyPolicy\") || ($.eventName = \"DisableKey\") || ($.eventName = \"ScheduleKeyDeletion\")) }"
  metric_transformation {
    namespace     = var.name
    name          = "KeyChanged"
    value         = "1"
    default_value = 0
  }
}

resource "aws_cloudwatch_metric_alarm" "changed" {
  alarm_name          = "${var.name}-changed"
  alarm_description   = "Grants, policy or state of the key were changed"
  namespace           = var.name
  metric_name         = "KeyChanged"
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  threshold           = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic == null ? [] : [var.alarm_topic]
}
