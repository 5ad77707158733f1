package nitrotpm

// This file is TPM2_GetCapability, to whose answers the vendor command is added.

const (
	capCommands   = 2
	capProperties = 6

	ptTotalCommands  = 0x129
	ptVendorCommands = 0x12b
	ptNVBufferMax    = 0x12c

	// ccaNSM are the attributes of the vendor command (TPMA_CC): V, two handles, it
	// writes NV, and its index.
	ccaNSM = 1<<29 | 2<<25 | 1<<22 | ccNSM&0xffff
)

// capability answers TPM2_GetCapability: parameters are capability, property and count.
func (t *TPM) capability(c *command) ([]byte, error) {
	answer, err := t.forward(c.raw)
	if err != nil || code(answer) != rcSuccess || len(c.params) != 12 || c.tag != tagNoSessions || len(answer) < headerSize+9 || t.set("no-vendor-command") {
		return answer, err
	}
	property, wanted := be.Uint32(c.params[4:]), be.Uint32(c.params[8:])
	more, n := &answer[headerSize], answer[headerSize+5:headerSize+9]
	list := answer[headerSize+9:]
	switch be.Uint32(c.params) {
	case capCommands:
		// It has the highest number, so it is the last of the list.
		switch {
		case *more != 0 || property > ccNSM:
		case be.Uint32(n) < wanted:
			be.PutUint32(n, be.Uint32(n)+1)
			return sized(be.AppendUint32(answer, ccaNSM)), nil
		default:
			*more = 1
		}
	case capProperties:
		for ; len(list) >= 8; list = list[8:] {
			switch be.Uint32(list) {
			case ptTotalCommands, ptVendorCommands:
				be.PutUint32(list[4:], be.Uint32(list[4:])+1)
			}
		}
	}
	return answer, nil
}
