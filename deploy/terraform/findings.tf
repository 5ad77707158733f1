# A rule of EventBridge for each finding that a record shows by itself, with a message to
# the topic. What takes more than one record is for unlockctl audit and the queries: late,
# repeated, set-exists, set-moved; and other-region, which is an event of another Region.
module "audit" {
  source         = "./audit"
  sealed         = local.sealed
  instance_store = var.instance_store
  endpoint       = var.vpc != null
  purpose        = var.purpose
  object         = var.object
  key_arn        = aws_kms_key.this.arn
  key_id         = aws_kms_key.this.key_id
  role           = aws_iam_role.this.name
  role_arn       = aws_iam_role.this.arn
  bucket         = local.sealed ? aws_s3_bucket.this[0].id : ""
  endpoint_id    = var.vpc == null ? "-" : aws_vpc_endpoint.kms[0].id
}

resource "aws_cloudwatch_event_rule" "finding" {
  for_each      = toset(module.audit.findings)
  name          = "${var.name}-${each.key}"
  description   = "unlockctl audit would report ${each.key}"
  event_pattern = jsonencode(module.audit.patterns[each.key])
  # Decrypt and reads of the object only read.
  state = "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"
}

resource "aws_cloudwatch_event_target" "finding" {
  for_each = toset(module.audit.findings)
  rule     = aws_cloudwatch_event_rule.finding[each.key].name
  arn      = aws_sns_topic.findings.arn
  input_transformer {
    input_paths = {
      at   = "$.time"
      call = "$.detail.eventName"
      id   = "$.detail.eventID"
      who  = "$.detail.userIdentity.arn"
    }
    input_template = "\"${each.key}: <call> by <who> at <at>, event <id>\""
  }
}

resource "aws_sns_topic" "findings" {
  name = "${var.name}-findings"
}

resource "aws_sns_topic_policy" "findings" {
  arn = aws_sns_topic.findings.arn
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "events.amazonaws.com" }
      Action    = "sns:Publish"
      Resource  = aws_sns_topic.findings.arn
      Condition = { ArnEquals = { "aws:SourceArn" = [for r in aws_cloudwatch_event_rule.finding : r.arn] } }
    }]
  })
}

output "findings_topic" {
  description = "Whoever subscribes is told of findings"
  value       = aws_sns_topic.findings.arn
}
