// The first instructions. A PVH loader enters here in 32-bit protected mode, paging off, with the
// address of hvm_start_info in ebx (Xen, docs/misc/pvh.pandoc; QEMU -kernel, Firecracker and Cloud
// Hypervisor do the same).
//
// Only what Rust needs is done: long mode with the first 4 GiB mapped one to one, SSE, a stack. The
// lasting page tables, with their rights, are built by `early`; what is reserved here in
// .bss.fata_boot_scratch then belongs to the heap.

.section .note.pvh, "a", @note
.balign 4
.long 4                         // length of "Xen" with its zero
.long 4                         // length of the address
.long 18                        // XEN_ELFNOTE_PHYS32_ENTRY
.asciz "Xen"
.long fata_pvh_entry

.section .text.fata_boot, "ax", @progbits
.code32
.global fata_pvh_entry
fata_pvh_entry:
    cli
    cld
    mov esi, ebx
    rdtsc
    mov dword ptr [{entry_tsc}], eax
    mov dword ptr [{entry_tsc} + 4], edx
    mov esp, offset fata_boot_stack_top

    // PML4 -> one PDPT -> four page directories of 2 MiB pages.
    mov edi, offset fata_boot_pml4
    lea eax, [edi + 0x1000 + 3]
    mov [edi], eax
    lea edi, [edi + 0x1000]
    lea eax, [edi + 0x1000 + 3]
    mov ecx, 4
2:  mov [edi], eax
    add eax, 0x1000
    add edi, 8
    dec ecx
    jnz 2b
    mov edi, offset fata_boot_pml4 + 0x2000
    mov eax, 0x83                       // present, writable, 2 MiB
    mov ecx, 2048
3:  mov [edi], eax
    add eax, 0x200000
    add edi, 8
    dec ecx
    jnz 3b

    mov eax, cr4
    or eax, 0x620                       // PAE, OSFXSR, OSXMMEXCPT
    mov cr4, eax
    mov eax, offset fata_boot_pml4
    mov cr3, eax
    mov ecx, 0xC0000080                 // EFER
    rdmsr
    or eax, 0x100                       // LME
    wrmsr
    mov eax, cr0
    and eax, 0x9ffffffb                 // not EM: there is SSE; not CD, NW: caches on
    or eax, 0x80010022                  // PG, WP, NE, MP
    mov cr0, eax
    lgdt [fata_boot_gdt_pointer]
    ljmp 0x8, offset fata_boot_long_mode

.code64
fata_boot_long_mode:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    xor eax, eax
    mov fs, ax
    mov gs, ax
    mov rsp, offset fata_boot_stack_top
    xor ebp, ebp                        // the last frame of every backtrace
    mov edi, esi
    call {early}                        // returns the top of the program's stack
    mov rsp, rax
    xor ebp, ebp
    call {boot}
    ud2

// What `fata build` puts in the place of functions of std that an image cannot use, such as the
// lookup of a frame's name: `()`, or `Ok(())`, at once. See crates/cli/src/build/linker.rs.
.global fata_absent
fata_absent:
    xor eax, eax
    ret

.balign 8
fata_boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff            // 64-bit code
    .quad 0x00cf93000000ffff            // data
fata_boot_gdt_pointer:
    .word 23
    .quad fata_boot_gdt

.section .bss.fata_boot_scratch, "aw", @nobits
.balign 4096
fata_boot_pml4:
    .skip 0x6000
fata_boot_stack:
    .skip 0x4000
fata_boot_stack_top:
