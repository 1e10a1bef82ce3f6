// The upcall: Xen says that events are pending. And the sleep that it ends.
//
// The handler acknowledges, without which Xen would interrupt again at once, and nothing more: what
// is pending is in the shared page. Xen injects the vector by itself, not through the local APIC, so
// there is no end of interrupt to signal, and that saves an exit.
//
// A hypervisor that is itself run by an emulator may inject the upcall twice, the second time at the
// first instruction of this handler although interrupts are off (seen on Xen 4.17 in QEMU 7.2, once
// in some ten thousand sleeps). So entering it twice does no harm.
//
// The sleep is `sti; hlt`. The processor holds interrupts back for one instruction after `sti`, but a
// hypervisor may forget that when it takes the processor away right there (QEMU's emulation of
// SVM does), and then the upcall comes before the `hlt`, which would sleep on although an event is
// pending. So the handler looks where it returns to: a `hlt` that it would return to is skipped.

.section .text.fata_upcall, "ax", @progbits
.code64

.balign 16
.global fata_upcall_stub
fata_upcall_stub:
    push rax
    mov rax, qword ptr [{shared_info}]
    mov byte ptr [rax], 0               // vcpu_info.evtchn_upcall_pending
    lea rax, [rip + fata_upcall_halt]
    cmp qword ptr [rsp + 8], rax
    jne 2f
    inc qword ptr [rsp + 8]             // `hlt` is one byte
2:  pop rax
    iretq

.balign 16
.global fata_upcall_sleep
fata_upcall_sleep:
    sti
fata_upcall_halt:
    hlt
    cli
    ret
