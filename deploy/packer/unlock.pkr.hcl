# An image with unlock, from an image of a distribution. The defaults are Debian 13's;
# other distributions: change source_name, source_owner, user, and package to the rpm.
#
#   packer init . && packer build -var package=unlock_VERSION_amd64.deb -var config=unlock.toml .

variable "package" {
  type        = string
  description = "The deb or rpm to install."
}

variable "config" {
  type        = string
  description = "What becomes /etc/unlock.toml."
}

variable "source_name" {
  type    = string
  default = "debian-13-amd64-*" # al2023-ami-2023.*-x86_64, ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-*, Fedora-Cloud-Base-*
}

variable "source_owner" {
  type    = string
  default = "136693071363" # Debian; amazon, 099720109477 (Canonical), 125523088429 (Fedora)
}

variable "user" {
  type    = string
  default = "admin" # ec2-user, ubuntu, fedora
}

variable "region" {
  type    = string
  default = "us-east-1"
}

variable "instance_type" {
  type    = string
  default = "m6id.large"
}

source "amazon-ebs" "unlock" {
  ami_name      = "unlock-${formatdate("YYYYMMDDhhmmss", timestamp())}"
  region        = var.region
  instance_type = var.instance_type
  ssh_username  = var.user
  imds_support  = "v2.0"
  metadata_options {
    http_endpoint = "enabled"
    http_tokens   = "required"
  }
  source_ami_filter {
    filters     = { name = var.source_name, root-device-type = "ebs", virtualization-type = "hvm" }
    owners      = [var.source_owner]
    most_recent = true
  }
}

build {
  sources = ["source.amazon-ebs.unlock"]

  provisioner "file" {
    source      = var.package
    destination = "/tmp/${basename(var.package)}"
  }
  provisioner "file" {
    source      = var.config
    destination = "/tmp/unlock.toml"
  }
  provisioner "shell" {
    script          = "${path.root}/install.sh"
    execute_command = "sudo sh {{ .Path }} '/tmp/${basename(var.package)}'"
  }
}
