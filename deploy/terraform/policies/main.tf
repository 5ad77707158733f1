# The policies of role, key and bucket as `unlockctl policy` prints them. Apart from
# the resources, because it needs no provider: `make deploy-test` compares the two.

variable "sealed" { type = bool }
variable "purpose" { type = string }
variable "key_arn" { type = string }
variable "role_arn" { type = string }
variable "bucket_arn" { type = string }
variable "object" { type = string }

locals {
  read = {
    Sid      = "UnlockRead"
    Effect   = "Allow"
    Action   = ["s3:GetObject"]
    Resource = ["${var.bucket_arn}/${var.object}"]
  }
  kms = {
    Sid      = "UnlockKMS"
    Effect   = "Allow"
    Action   = var.sealed ? ["kms:Decrypt"] : ["kms:Decrypt", "kms:GenerateDataKey"]
    Resource = [var.key_arn]
    Condition = merge(
      {
        StringEquals                = { "kms:EncryptionContext:purpose" = var.purpose }
        "ForAllValues:StringEquals" = { "kms:EncryptionContextKeys" = var.sealed ? ["purpose"] : ["purpose", "unlock:set"] }
      },
      var.sealed ? {} : { Null = { "kms:EncryptionContext:unlock:set" = "false" } },
    )
  }
  tls = {
    Sid       = "UnlockTLSOnly"
    Effect    = "Deny"
    Principal = "*"
    Action    = ["s3:*"]
    Resource  = [var.bucket_arn, "${var.bucket_arn}/*"]
    Condition = { Bool = { "aws:SecureTransport" = "false" } }
  }
  principal = { Principal = { AWS = var.role_arn } }
}

# Statements differ in type, so they are joined as text.
output "role" {
  value = "{\"Version\":\"2012-10-17\",\"Statement\":[${join(",", concat(var.sealed ? [jsonencode(local.read)] : [], [jsonencode(local.kms)]))}]}"
}

# The statement that a key policy needs beside those of its administrators.
output "key" {
  value = jsonencode(merge(local.kms, local.principal, { Resource = ["*"] }))
}

output "bucket" {
  value = "{\"Version\":\"2012-10-17\",\"Statement\":[${jsonencode(merge(local.read, local.principal))},${jsonencode(local.tls)}]}"
}
