# The queries of Athena and the patterns of EventBridge, filled in. Apart from the
# resources, because it needs no provider: `make deploy-test` looks at what comes of it.

variable "sealed" { type = bool }
variable "instance_store" { type = bool }
variable "endpoint" { type = bool } # there is a VPC endpoint for KMS
variable "purpose" { type = string }
variable "object" { type = string }
variable "key_arn" { type = string }
variable "key_id" { type = string }
variable "role" { type = string }
variable "role_arn" { type = string }
variable "bucket" { type = string }
variable "endpoint_id" { type = string }

locals {
  patterns = "${path.module}/findings.json.tftpl"
  # What there is depends on nothing that is known only once it is made.
  all = keys(jsondecode(templatefile(local.patterns, {
    key = "", key_id = "", role_arn = "", purpose = "", bucket = "", object = "", endpoint = "", sealed = var.sealed
  })))
}

output "queries" {
  value = {
    for name in ["view", "who", "found", "denied"] : name => templatefile("${path.module}/${name}.sql", {
      key            = var.key_arn
      purpose        = replace(var.purpose, "'", "''")
      role           = var.role
      bucket         = var.sealed ? var.bucket : ""
      object         = var.sealed ? replace(var.object, "'", "''") : ""
      source         = var.sealed ? "s3" : "header"
      instance_store = var.instance_store
    })
  }
}

output "columns" {
  value = jsondecode(file("${path.module}/columns.json"))
}

output "findings" {
  value = [for name in local.all : name
  if(name != "elsewhere" || var.endpoint) && (var.sealed || !contains(["ciphertext-read", "ciphertext-replaced", "bucket-changed"], name))]
}

output "patterns" {
  value = jsondecode(templatefile(local.patterns, {
    key      = var.key_arn
    key_id   = var.key_id
    role_arn = var.role_arn
    purpose  = var.purpose
    bucket   = var.sealed ? var.bucket : "-" # no bucket is named so
    object   = var.object
    endpoint = var.endpoint_id
    sealed   = var.sealed
  }))
}
