package main

import "unlock/test/lab"

// recovering opens a volume by each of the keys that people have at hand, with the
// credentials of the instance's role where AWS is asked.
var recovering = []lab.Scenario{{
	Name: "recover", Config: volume(s3Key, "ext4", atSecretfs), Disks: blank(2), Tool: true,
	Boots: []lab.Boot{
		{Script: "write_stripe"},
		{
			Script: "recover_each_way", Secret: true,
			Want: []string{
				"--sealed=s3://an-internalstoragekeybucket/LuksInternalStorageKey: " + lab.FileText,
				"--kms-key=$KEY: " + lab.FileText, "--key-file=/run/paper: " + lab.FileText,
			},
		},
		{Script: "close_stripe", Want: []string{lab.FileText, `volume "secretfs" is closed`}},
	},
}}
