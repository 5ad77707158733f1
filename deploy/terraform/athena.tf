# The trail as a table, and the auditor's questions as queries: audit/view.sql makes the
# view that the others read, and is run once. The table has partitions for Regions and
# days, which nobody has to add: Athena knows where CloudTrail puts its files.
locals {
  trail_files = "s3://${aws_s3_bucket.trail.id}/AWSLogs/${data.aws_caller_identity.this.account_id}/CloudTrail"
}

resource "aws_glue_catalog_database" "audit" {
  name = replace(lower(var.name), "/[^a-z0-9_]/", "_") # Athena's have no hyphens
}

resource "aws_glue_catalog_table" "trail" {
  database_name = aws_glue_catalog_database.audit.name
  name          = "cloudtrail"
  table_type    = "EXTERNAL_TABLE"
  parameters = {
    "projection.enabled"           = "true"
    "projection.region.type"       = "enum"
    "projection.region.values"     = join(",", var.audit_regions)
    "projection.day.type"          = "date"
    "projection.day.format"        = "yyyy/MM/dd"
    "projection.day.range"         = "NOW-${var.trail_lock_days}DAYS,NOW"
    "projection.day.interval"      = "1"
    "projection.day.interval.unit" = "DAYS"
    "storage.location.template"    = "${local.trail_files}/$${region}/$${day}"
  }
  partition_keys {
    name = "region"
    type = "string"
  }
  partition_keys {
    name = "day"
    type = "string"
  }
  storage_descriptor {
    location      = local.trail_files
    input_format  = "com.amazon.emr.cloudtrail.CloudTrailInputFormat"
    output_format = "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat"
    ser_de_info {
      serialization_library = "org.apache.hive.hcatalog.data.JsonSerDe"
    }
    dynamic "columns" {
      for_each = module.audit.columns
      content {
        name = columns.key
        type = columns.value
      }
    }
  }
}

# What queries answer is kept for a week.
resource "aws_s3_bucket" "answers" {
  bucket_prefix = "${var.name}-answers-"
}

resource "aws_s3_bucket_lifecycle_configuration" "answers" {
  bucket = aws_s3_bucket.answers.id
  rule {
    id     = "week"
    status = "Enabled"
    filter {}
    expiration {
      days = 7
    }
  }
}

resource "aws_s3_bucket_public_access_block" "answers" {
  bucket                  = aws_s3_bucket.answers.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_athena_workgroup" "audit" {
  name = "${var.name}-audit"
  configuration {
    engine_version {
      selected_engine_version = "Athena engine version 3"
    }
    result_configuration {
      output_location = "s3://${aws_s3_bucket.answers.id}/"
    }
  }
}

resource "aws_athena_named_query" "audit" {
  for_each  = toset(["view", "who", "found", "denied"])
  name      = "${var.name}-${each.key}"
  workgroup = aws_athena_workgroup.audit.id
  database  = aws_glue_catalog_database.audit.name
  query     = module.audit.queries[each.key]
}

output "queries" {
  description = "Ids of Athena's named queries; view is to be run once, before the others"
  value       = { for name, q in aws_athena_named_query.audit : name => q.id }
}
