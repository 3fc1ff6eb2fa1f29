package instance

import (
	"errors"
	"fmt"
	"io/fs"
	"unsafe"

	"golang.org/x/sys/windows"
)

// guardedBy is the owner and the whole access list of the directory of the machine's
// instances: the system and the administrators, and so of all below. The directory lies
// where every user may make one, and the modes of files mean nothing here.
const guardedBy = "O:BAD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"

// guard makes the directory of the machine's instances, for the system and the
// administrators alone. One that somebody else has made is refused.
func guard(dir string) error {
	sd, err := windows.SecurityDescriptorFromString(guardedBy)
	if err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	sa := windows.SecurityAttributes{SecurityDescriptor: sd}
	sa.Length = uint32(unsafe.Sizeof(sa)) //nolint:gosec // it is small
	switch err := windows.CreateDirectory(name, &sa); {
	case err == nil:
		return nil
	case errors.Is(err, windows.ERROR_INVALID_OWNER), errors.Is(err, windows.ERROR_ACCESS_DENIED):
		return fmt.Errorf("make %s: %w; run this as an administrator, or choose a directory of your own by %s", dir, err, EnvDir)
	case !errors.Is(err, windows.ERROR_ALREADY_EXISTS):
		return fmt.Errorf("make %s: %w", dir, err)
	}
	// One of an earlier version may be open to others.
	h, err := openGuarded(dir, windows.WRITE_DAC)
	if err != nil {
		return err
	}
	defer windows.CloseHandle(h) //nolint:errcheck // nothing was written through it
	dacl, _, err := sd.DACL()
	if err == nil {
		err = windows.SetSecurityInfo(h, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, dacl, nil)
	}
	if err != nil {
		return fmt.Errorf("keep others out of %s: %w", dir, err)
	}
	return nil
}

// guarded reports why a directory, if there is one, is none of the administrators'.
func guarded(dir string) error {
	h, err := openGuarded(dir, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return windows.CloseHandle(h)
}

// openGuarded opens a directory, and no link to one, that belongs to the system or to
// the administrators. What is done by its handle is done to just that one.
func openGuarded(dir string, access uint32) (_ windows.Handle, err error) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", dir, err)
	}
	h, err := windows.CreateFile(name, access|windows.READ_CONTROL|windows.FILE_READ_ATTRIBUTES,
		windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE, nil, windows.OPEN_EXISTING,
		windows.FILE_FLAG_BACKUP_SEMANTICS|windows.FILE_FLAG_OPEN_REPARSE_POINT, 0)
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", dir, err)
	}
	defer func() {
		if err != nil {
			_ = windows.CloseHandle(h) // nothing was written through it
		}
	}()
	var info windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(h, &info); err != nil {
		return 0, fmt.Errorf("open %s: %w", dir, err)
	}
	if info.FileAttributes&windows.FILE_ATTRIBUTE_REPARSE_POINT != 0 || info.FileAttributes&windows.FILE_ATTRIBUTE_DIRECTORY == 0 {
		return 0, fmt.Errorf("%s is a link, or no directory; remove it as an administrator", dir)
	}
	sd, err := windows.GetSecurityInfo(h, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION)
	if err != nil {
		return 0, fmt.Errorf("find the owner of %s: %w", dir, err)
	}
	owner, _, err := sd.Owner()
	if err != nil {
		return 0, fmt.Errorf("find the owner of %s: %w", dir, err)
	}
	if !owner.IsWellKnown(windows.WinBuiltinAdministratorsSid) && !owner.IsWellKnown(windows.WinLocalSystemSid) {
		return 0, fmt.Errorf("%s belongs to %s, and not to the administrators: whoever made it could change the agent's settings; look at what is in it, and remove it or give it to the Administrators group", dir, owner)
	}
	return h, nil
}
