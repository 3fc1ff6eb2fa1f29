// Package structured replaces values in configuration files by the variables of
// a deployment.
//
// A variable named "Logging:Level" replaces the value at that path in a JSON or
// YAML file; one named by an XPath does so in XML, one named like a key in a
// properties file. Only what exists is replaced: nothing is ever added. [Replace]
// does this; [ReplaceDotNetConfig] does the same for .NET's appSettings and
// connectionStrings, [TransformXML] applies XDT transforms, [LocateTransforms]
// finds which transform goes with which file, and [Substitute] evaluates
// templates in any text file.
//
// The files belong to the user, and are often kept under version control or read
// by people, so:
//   - A file in which nothing matches comes back byte for byte.
//   - YAML, properties and .config files are edited in place: the text around a
//     replaced value is not touched. JSON and XML are written anew, with two
//     spaces of indentation.
//   - Byte order mark, encoding and line ends stay. If the encoding cannot hold a
//     new value, the file becomes UTF-8 without a byte order mark.
//
// All functions are pure: bytes in, bytes out. Which files, and where they lie, is
// the caller's business.
package structured
