package vm

// Dump writes the machine's physical memory to a file, one byte for each, while the
// machine stands still.
type Dump struct {
	When string // the console shows this
	File string
}

// dumpMemory returns what QEMU has to do. Below 2 GiB all memory of a q35 machine
// is in one piece.
func (m *Machine) dumpMemory(file string) []request {
	return []request{
		{Execute: "stop"},
		{"pmemsave", map[string]any{"val": 0, "size": m.memory() << 20, "filename": file}},
		{Execute: "cont"},
	}
}
